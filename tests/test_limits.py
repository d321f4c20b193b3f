"""The judge of the fuzzers sees what it is there to see."""

import os

import pytest
from limits import Hang, Silent, Tally, WrongCode, limits

from fcos.errors import FcosError


def judged(gate):
    tally = Tally()
    tally.try_one(gate, "x")
    return dict(tally.counts), tally


def test_each_end_is_counted_as_what_it_is():
    def raises(error):
        def gate(_):
            raise error

        return gate

    cases = {
        "taken": lambda _: 1,
        "refused": raises(FcosError("no")),
        "message": raises(FcosError("")),
        "traceback": raises(KeyError("a")),
        "silent": raises(Silent("a")),
        "code": raises(WrongCode("3")),
        "memory": lambda _: bytearray(8 << 30),
    }
    for kind, gate in cases.items():
        counts, tally = judged(gate)
        assert counts == {kind: 1}
        if kind in ("taken", "refused"):
            tally.check()
        else:
            with pytest.raises(AssertionError, match=kind):
                tally.check()
    with pytest.raises(AssertionError):
        Tally().check()


def test_what_computes_for_ever_or_waits_for_ever_ends(tmp_path, monkeypatch):
    def busy():
        while True:
            pass

    with pytest.raises(Hang), limits(seconds=1):
        busy()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("limits.WAITING", 0.2)
    with pytest.raises(Hang), limits():
        (tmp_path / "pipe").open()
    bytearray(8)  # and what held for the case does not hold behind it
