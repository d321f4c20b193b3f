"""What a result says it was made with: the commit, asked for without a write to the repository."""

import os
import shutil
import subprocess

import pytest

from fcos.system import environment


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not on this machine")
def test_the_commit_is_asked_for_without_a_write_to_the_repository(tmp_path, monkeypatch):
    """A process that was killed while git wrote its index left a lock there, which stopped every commit after it."""

    def git(*words):
        named = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", *named, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    (tmp_path / "fcos" / "system").mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "fcos" / "system" / "environment.py"))
    assert environment._commit() is None
    file = tmp_path / "a"
    file.write_text("1")
    git("init", "-q")
    git("add", "a")
    git("commit", "-qm", "first")
    name = git("rev-parse", "--short", "HEAD").strip()
    os.utime(file, (1, 1))  # git would look at its content, and note the new time in the index
    index = (tmp_path / ".git" / "index").read_bytes()
    assert environment._commit() == name
    file.write_text("2")
    assert environment._commit() == f"{name}-dirty"
    assert (tmp_path / ".git" / "index").read_bytes() == index
    inside = tmp_path / ".venv" / "site-packages" / "fcos" / "system"
    inside.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(inside / "environment.py"))
    assert environment._commit() is None  # the repository is that of a project which has the package installed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["/usr/bin/fcos", "train", "my data"], "fcos train 'my data'"),
        (["/lib/fcos/__main__.py", "eval", "a"], "fcos eval a"),
        (["/home/me/learn.py", "--big"], "python learn.py --big"),
        (["/lib/ipykernel_launcher.py", "-f", "/home/me/kernel.json"], "a Python session"),
        (["/lib/mine/__main__.py", "a"], "python -m mine a"),
        (["-c"], "a Python session"),
        ([""], "a Python session"),
    ],
)
def test_the_command_is_what_was_typed(words, told):
    assert environment._command(words) == told
