"""What a missing extra says, in a clone and out of one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fcos import errors


def test_the_hint_installs_from_where_the_package_is(tmp_path):
    with pytest.raises(errors.MissingExtra) as told:
        errors.require("no_such_module_anywhere", "onnx")
    root = Path(errors.__file__).resolve().parents[1]
    assert "no_such_module_anywhere" in str(told.value)
    assert f"pip install -e '{root}[onnx]'" in str(told.value)  # these tests run in a clone
    package = tmp_path / "fcos"
    package.mkdir()
    shutil.copy(errors.__file__, package / "errors.py")
    (package / "__init__.py").touch()
    code = "from fcos.errors import install_line; print(install_line('onnx'))"
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert elsewhere.stdout.strip() == "pip install 'fcos-detector[onnx]'", elsewhere.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\nb"), "a"),
        (ValueError("\n\n a \nb"), "a"),
        (AssertionError(), "AssertionError"),
        (OSError("\n"), "OSError"),
    ],
)
def test_the_first_line_of_an_error_is_there_whatever_it_says(error, line):
    assert errors.first_line(error) == line


def test_nobody_takes_the_first_line_of_what_may_say_nothing():
    package = Path(errors.__file__).parent
    assert not [p for p in package.rglob("*.py") if "str(error).splitlines()[0]" in p.read_text()]
