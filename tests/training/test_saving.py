"""Checkpoints are written beside training: from a copy, in order, and what goes wrong is heard."""

import threading

import pytest
import torch

from fcos.errors import FcosError
from fcos.training.output.saving import Saver, copied


def test_a_copy_is_apart_however_deep():
    weight = torch.ones(3, requires_grad=True)
    state = {"a": weight, "b": [{"c": torch.zeros(2)}, (torch.ones(1), 4, None, "x")]}
    twin = copied(state)
    with torch.no_grad():
        weight.fill_(7)
        state["b"][0]["c"].fill_(7)
        state["b"][1][0].fill_(7)
    assert twin["a"].tolist() == [1, 1, 1]
    assert not twin["a"].requires_grad
    assert twin["b"][0]["c"].tolist() == [0, 0]
    assert twin["b"][1][0].tolist() == [1]
    assert twin["b"][1][1:] == (4, None, "x")


def test_writing_goes_on_beside_and_in_order():
    saver, go, done = Saver(), threading.Event(), []
    saver.start(lambda: (go.wait(60), done.append(1))[1])
    assert done == []  # `start` came back while the first is being written
    saver.check()
    go.set()
    saver.start(lambda: done.append(2))
    saver.wait()
    assert done == [1, 2]
    saver.close()


@pytest.mark.parametrize("next_call", ["start", "check", "wait"])
def test_an_error_of_the_thread_is_raised_once(next_call):
    def full():
        raise FcosError("cannot write x: No space left on device")

    saver = Saver()
    saver.start(full)
    saver._pending.exception(60)
    with pytest.raises(FcosError, match="No space left"):
        saver.start(lambda: None) if next_call == "start" else getattr(saver, next_call)()
    saver.wait()
    saver.close()
    Saver().close()
