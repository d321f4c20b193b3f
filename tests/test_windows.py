"""Windows, imitated where it is not: what it lacks is taken away, what it refuses is refused."""

import ast
import errno
import io
import multiprocessing
import ntpath
import os
import pickle
import signal
import tarfile
from pathlib import Path, PureWindowsPath

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tiny import make_shapes, tiny_config

import fcos
from fcos.data.loading import loader
from fcos.data.loading.loader import eval_batches, train_loader
from fcos.data.open import open_dataset, open_splits
from fcos.data.write import convert
from fcos.errors import DataError, FcosError
from fcos.export import browser
from fcos.inference.writers import unique_names
from fcos.system import files
from fcos.system.readers import read_bytes
from fcos.system.threads import cpu_cores

SOURCES = sorted(Path(fcos.__file__).parent.rglob("*.py"))
UNIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "curses", "readline"}
UNIX_NAMES = {
    "os": {"fork", "nice", "getuid", "geteuid", "getgid", "sched_getaffinity", "statvfs", "mkfifo", "setsid", "killpg",
           "getpgid", "setpgid", "uname", "sysconf", "chown", "fchmod", "fchown", "getloadavg", "wait4", "kill"},
    "signal": {"SIGKILL", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGCHLD", "alarm", "setitimer", "pthread_kill"},
}  # fmt: skip
GUARDED = {  # where such a name stands behind a question for it
    ("system/threads.py", "sched_getaffinity"),
    ("bench/ways.py", "sysconf"),  # behind a file of /proc
    ("training/clock.py", "sysconf"),  # AttributeError is caught
    ("data/loading/loader.py", "statvfs"),  # only where there is a /dev/shm
    ("data/loading/loader.py", "SIGALRM"),
    ("data/loading/loader.py", "SIGHUP"),
    ("data/loading/loader.py", "alarm"),
    ("cli/models.py", "nice"),
    ("serving/metrics.py", "kill"),
    ("export/browser.py", "geteuid"),  # find_chromium gives None before
}


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(files, "WINDOWS", True)


def test_no_module_needs_unix_to_be_imported():
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # late imports are not among these
            names = {a.name for a in node.names} if isinstance(node, ast.Import) else set()
            names |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
            assert not names & UNIX_MODULES, (path, names)


def test_what_only_unix_has_is_asked_for_before():
    used = set()
    for path in SOURCES:
        name = path.relative_to(SOURCES[0].parent).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used |= {(name, node.attr)} if node.attr in UNIX_NAMES.get(node.value.id, ()) else set()
    assert used == GUARDED


def test_without_sched_getaffinity_all_cores_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cpu_cores() == os.cpu_count()


def test_a_loader_process_starts_without_sigalrm(monkeypatch):
    seen = []
    monkeypatch.delattr(signal, "SIGALRM", raising=False)
    monkeypatch.setattr(signal, "signal", lambda number, handler: seen.append(number))
    threads = torch.get_num_threads()
    try:
        loader._start_worker(0)
    finally:
        torch.set_num_threads(threads)
    assert seen == [signal.SIGINT]


def test_a_file_inside_a_tar_file_is_read(tmp_path, monkeypatch):
    """Windows says of a path below a file that it is not there, and its own separator is another than that of tar."""
    tar, honest = tmp_path / "a.tar", os.open
    with tarfile.open(tar, "w") as archive:
        member = tarfile.TarInfo("./photos//a.txt")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"one"))

    def refuse(path, *rest, **more):
        try:
            return honest(path, *rest, **more)
        except NotADirectoryError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "path", ntpath)
    assert read_bytes(tar / "photos" / "a.txt") == b"one"
    with pytest.raises(FcosError, match="there is no such file in the tar file"):
        read_bytes(tar / "photos" / "b.txt")
    with pytest.raises(FcosError, match="no such file or directory"):
        read_bytes(tmp_path / "b.tar" / "a.txt")


def test_no_chromium_is_driven_there(windows, monkeypatch):
    monkeypatch.setenv("FCOS_CHROMIUM", "chrome.exe")
    assert browser.find_chromium() is None
    with pytest.raises(FcosError):
        browser.Browser()


def reserved(name):
    """Python's own opinion of a name."""
    return ntpath.isreserved(name) if hasattr(ntpath, "isreserved") else PureWindowsPath(name).is_reserved()


@given(st.text(alphabet=st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=12))
@example("con.jpg")
@example("AUX")
@example("com1 .tar.gz")
@example("a:b")
@example("photo. .")
@example("2024-01-01T10:00:00")
@example("CONOUT$")
@example("lpt²")
def test_a_file_name_is_one_that_windows_takes(name):
    before, files.WINDOWS = files.WINDOWS, True
    try:
        taken = files.file_name(name)
    finally:
        files.WINDOWS = before
    path = PureWindowsPath(taken)
    assert path.name == taken  # no drive, no folder, no stream of another file
    assert not path.drive
    assert not reserved(taken)
    assert not set(taken) & set('<>:"|?*')
    assert min(taken) >= " "
    assert taken[-1] not in ". "


def test_a_good_name_stays(windows):
    for name in ("photo 1", "ü.jpg", "console.jpg", "com10.txt", "a.b.c", "nullen"):
        assert files.file_name(name) == name


def test_outputs_of_windows_names(windows):
    names = unique_names([Path(n) for n in ("aux.jpg", "AUX.png", "a:b.jpg", "a_b.jpg", "sub/A?B.jpg")])
    assert names == ["_aux", "_AUX-2", "a_b", "a_b-2", "A_B-3"]


@pytest.mark.parametrize("to", ["yolo", "voc", "labelme"])
def test_a_set_with_names_that_windows_lacks_is_converted(windows, tmp_path, to):
    source = make_shapes(tmp_path / "source", {"train": 3})
    listed = source / "instances_train.json"
    text = listed.read_text()
    for number, name in enumerate(("con.png", "at 10:00.png", "At 10_00.png")):
        (source / "images" / "train" / f"image {number} ü.png").rename(source / "images" / "train" / name)
        for old in (f"image {number} ü.png", f"image {number} \\u00fc.png"):
            text = text.replace(old, name)
    listed.write_text(text)
    first = open_dataset(source, "train")
    convert(open_splits(source), tmp_path / "made", to)
    made = [path.name for path in (tmp_path / "made").rglob("*") if path.is_file()]
    assert not [name for name in made if reserved(name) or ":" in name]
    again = open_dataset(tmp_path / "made", "train")
    assert len(again) == 3
    assert sorted(len(r.boxes) for r in again.records) == sorted(len(r.boxes) for r in first.records)


def test_links_that_windows_refuses_are_one_line(monkeypatch, tmp_path):
    source = make_shapes(tmp_path / "source", {"train": 2})

    def refuse(self, target, target_is_directory=False):
        error = OSError(22, "A required privilege is not held by the client")
        error.winerror = 1314
        raise error

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(DataError, match="leave out --link"):
        convert(open_splits(source), tmp_path / "made", "yolo", link=True)
    assert not (tmp_path / "made").exists()


def test_what_is_flushed_is_open_for_writing(monkeypatch, tmp_path):
    """os.fsync fails on Windows where a file is open for reading only."""
    fcntl = pytest.importorskip("fcntl", reason="Windows does it itself")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE))
    files.write_whole(tmp_path / "a.txt", "text")
    assert seen == [os.O_RDWR]


def test_a_file_that_another_program_has_open_stays(monkeypatch, tmp_path):
    """Windows does not replace an open file."""
    (tmp_path / "a.txt").write_text("before")

    def refuse(self, target):
        raise PermissionError(13, "The process cannot access the file because it is being used by another process")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(FcosError, match=r"a\.txt.*being used"):
        files.write_whole(tmp_path / "a.txt", "after")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def loaders(tmp_path, workers):
    data = open_dataset(make_shapes(tmp_path / str(workers), {"train": 6}), "train")
    config = tiny_config(data={"workers": workers}, train={"iterations": 2, "batch": 2})
    return train_loader(data, config), eval_batches(data, config, 2)


def test_what_a_loader_process_is_given_can_travel(tmp_path):
    """Without fork all of it is pickled."""
    for one in loaders(tmp_path, 0):
        key = next(iter(one.keys))
        assert pickle.loads(pickle.dumps((one.source, key, loader._start_worker)))[1] == key


@pytest.mark.slow
def test_spawned_loader_processes_give_the_same_batches(tmp_path):
    """As on Windows and macOS, where processes are not forked."""
    alone = [list(one) for one in loaders(tmp_path, 0)]
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        spawned = [list(one) for one in loaders(tmp_path / "more", 1)]
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert torch.equal(alone[0][1][0].images, spawned[0][1][0].images)
    assert [b.ids for b in alone[1]] == [b.ids for b in spawned[1]]
    assert all(torch.equal(a.images, b.images) for a, b in zip(alone[1], spawned[1], strict=True))
