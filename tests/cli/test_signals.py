"""A command that is asked to end leaves things as they were."""

import signal

import pytest
from processes import at, fcos, run
from tiny import make_shapes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_half_written_stays(tmp_path, number):
    make_shapes(tmp_path / "data", {"train": 3})
    before = {p.name for p in tmp_path.iterdir()}
    work = fcos(
        ["data", "show", tmp_path / "data", "--out", tmp_path / "a.jpg"], at("fcos.system.files:_place", 1, number)
    )
    assert run(work, tmp_path / "log") == 128 + number
    assert {p.name for p in tmp_path.iterdir()} == before | {"log"}
    assert (tmp_path / "log").read_text() == "fcos: stopped\n"
