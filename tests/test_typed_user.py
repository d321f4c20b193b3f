"""What a type checker says about a user's program, and that it notices mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="pip install -e '.[dev]'")
PROGRAM = Path(__file__).with_name("typed_user.py")
HEAD = 'import fcos\n\nmodel = fcos.load()\nfound = model("photo.jpg")\n'
WRONG = {
    'model("photo.jpg", score="all")': "__call__",
    'model.replace(colour="red")': "colour",
    'fcos.load("fcos-lite0", decive="cpu")': "decive",
    "[d.nmae for d in found]": "nmae",
    'model.export("model.onnx", dynamik="batch")': "dynamik",
    'fcos.evaluate(model, "my_data", spilt="test")': "spilt",
}


def test_a_users_program_is_typed_and_its_mistakes_are_seen(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(HEAD + "\n".join(WRONG) + "\n")
    told = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--follow-imports=silent",
         PROGRAM, wrong],
        capture_output=True,
        text=True,
        cwd=PROGRAM.parents[1],
    )  # fmt: skip
    assert "typed_user.py" not in told.stdout, told.stdout
    errors = [line for line in told.stdout.splitlines() if ": error: " in line]
    first = HEAD.count("\n") + 1
    for number, (line, word) in enumerate(WRONG.items(), first):
        assert any(f"wrong.py:{number}:" in e and word in e for e in errors), (line, told.stdout)
