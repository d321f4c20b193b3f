"""The batch that fits into memory."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from tiny import equal_states, make_shapes, options, tiny_config

from fcos.data.loading.loader import train_loader
from fcos.data.open import open_splits
from fcos.errors import ConfigError
from fcos.network import weights
from fcos.training.batch_size import auto_batch, largest_batch, made_up_step, peak_bytes
from fcos.training.loop import Trainer
from fcos.training.output.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_splits(make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 16, "val": 6}))


def trainer(shapes, out, **sections):
    return Trainer(tiny_config(**sections), shapes, options(out))


@pytest.mark.parametrize(
    ("fixed", "each", "room", "limit", "expected"),
    [
        (10, 5, 100, 64, 18),  # 10 + 18 * 5 = 100
        (10, 5, 99, 64, 17),
        (10, 5, 1000, 64, 64),  # the limit comes first
        (10, 5, 15, 64, 1),
        (10, 5, 12, 64, 1),  # nothing fits: one is the least
        (0, 50, 120, 64, 2),
        (10, 5, 100, 1, 1),
    ],
)
def test_largest_batch_by_hand(fixed, each, room, limit, expected):
    asked = []

    def peak(n):
        asked.append(n)
        used = fixed + each * n
        return used if used <= room * 1.5 else None  # real memory ends a little later than the margin

    assert largest_batch(peak, room, limit) == expected
    assert asked == sorted(asked)
    assert max(asked) <= 2 * expected


def test_largest_batch_from_two_measurements():
    asked = []
    assert largest_batch(lambda n: asked.append(n) or 10 + 5 * n, 100, 64, tries=2) == 18
    assert asked == [1, 2]


def test_auto_batch_is_settled_once_and_kept(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("fcos.training.batch_size.free_bytes", lambda _: 10**9)
    run = trainer(shapes, tmp_path / "run", train={"batch": "auto"}, model={"backbone_norm": "batch"})
    assert run.config.train.batch == 2  # 16 images give 8 steps an epoch
    assert all(p.grad is None for p in run.network.parameters())
    fresh = trainer(shapes, tmp_path / "fresh", train={"batch": 2}, model={"backbone_norm": "batch"})
    assert equal_states(run.network.state_dict(), fresh.network.state_dict())
    stored = load_checkpoint(tmp_path / "run")
    assert stored["config"]["train"]["batch"] == 2
    assert "\n  batch: 2\n" in (tmp_path / "run" / "config.yaml").read_text()

    monkeypatch.setattr("fcos.training.batch_size.free_bytes", lambda _: 0)
    small = trainer(shapes, tmp_path / "small", train={"batch": "auto", "accumulate": 2})
    assert small.config.train.batch == 2  # one image for each part
    with pytest.raises(ConfigError, match=r"train\.batch=auto is settled when a training run starts"):
        train_loader(shapes["train"], tiny_config(train={"batch": "auto"}))


def test_auto_batch_shares_the_memory_among_the_processes_of_this_machine(monkeypatch):
    """Those on other machines have memory of their own."""
    network, cpu = weights.build(tiny_config(), 3), torch.device("cpu")
    one, two = (peak_bytes(lambda n=n: made_up_step(network, tiny_config(), cpu, n), cpu) for n in (1, 2))
    state = 12 * sum(p.numel() for p in network.parameters())  # of several processes, at most
    monkeypatch.setattr("fcos.training.batch_size.free_bytes", lambda _: int((one + 5.5 * (two - one) + state) / 0.22))
    fabric = SimpleNamespace(device=cpu, world_size=2, autocast=nullcontext)
    alone, both = (auto_batch(network, tiny_config(train={"batch": "auto"}), fabric, 1000, here)[0] for here in (1, 2))
    assert 2 <= both < alone
