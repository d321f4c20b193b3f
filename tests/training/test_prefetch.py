"""The batches that a step gets, with and without a thread that reads ahead."""

import threading

import pytest
import torch

from fcos.errors import DataError
from fcos.training.prefetch import Ahead
from fcos.types import Batch, Target


def batch(number):
    return Batch(torch.full((1, 3, 2, 2), number, dtype=torch.uint8), [(2, 2)], [Target.empty()], [number])


def loader(count, error=None, closed=None):
    try:
        for number in range(count):
            yield [batch(number)]
        if error is not None:
            raise error
    finally:
        if closed is not None:
            closed.append(threading.current_thread())


@pytest.mark.parametrize("ahead", [False, True])
def test_every_batch_comes_once_and_in_order(ahead):
    taken = Ahead(loader(5), torch.device("cpu"), ahead)
    assert [b.ids for (b,) in taken] == [[n] for n in range(5)]
    taken.close()


@pytest.mark.parametrize("ahead", [False, True])
def test_an_error_comes_where_its_batch_would(ahead):
    taken = Ahead(loader(2, DataError("gone")), torch.device("cpu"), ahead)
    assert next(taken)[0].ids == [0]
    assert next(taken)[0].ids == [1]
    with pytest.raises(DataError, match="gone"):
        next(taken)
    taken.close()


@pytest.mark.parametrize("ahead", [False, True])
def test_closing_ends_the_loader(ahead):
    closed = []
    taken = Ahead(loader(5, closed=closed), torch.device("cpu"), ahead)
    next(taken)
    taken.close()
    assert closed == [threading.current_thread()]
    assert not any(t.name.startswith("next-batch") for t in threading.enumerate())
