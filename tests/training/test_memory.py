"""What a training step takes of the memory: the table beside torch's own count, and the line before a run."""

import pytest
import torch

from fcos.network.weights import build
from fcos.points import padded
from fcos.presets import resolve
from fcos.training import memory
from fcos.training.batch_size import made_up_step, peak_bytes

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "side"), [("fcos-lite0", 160), ("fcos-lite1", 128), ("fcos-lite2", 128)])
def test_the_memory_of_a_step_is_as_it_was_measured(name, side):
    """Against torch's own storages: what a second image takes more; a small one here, of which odd edges are a larger
    part."""
    config = resolve(name, [f"data.size={side}", f"data.max_size={side * 5 // 3}", f"data.train_sizes=[{side}]"])
    network = build(config, 3)
    network.backbone.train().freeze(config.train.freeze_stages)
    one, two = (peak_bytes(lambda n=n: made_up_step(network, config, 3, CPU, n), CPU) for n in (1, 2))
    shape = padded((side, side * 5 // 3), config.data.divisor)
    assert two - one == pytest.approx(memory.step_bytes(name, 1, *shape), rel=0.25)


@pytest.fixture
def in_fp32(monkeypatch):
    monkeypatch.setattr(memory, "training_dtype", lambda *_: "fp32")


@pytest.mark.parametrize(
    ("name", "settings", "free", "told"),
    [
        # 8 images of 384 x 640 pixels, 850 bytes each: 1.67 GB, which 40 % of 4.18 GB hold
        ("fcos-lite0", (), 4.2e9, None),
        ("fcos-lite0", (), 4.1e9, "may take 4 GB and 4 are free; train.accumulate=2 "),
        ("fcos-lite0", (), 1.5e9, "may take 4 GB and 2 are free; train.accumulate=4 "),
        ("fcos-lite0", (), 1e6, "may take 4 GB and 0 are free; train.accumulate=8 "),
        ("fcos-lite0", ("train.accumulate=2",), 4.1e9, None),
        ("fcos-lite0", ("train.accumulate=2",), 2e9, "train.accumulate=4 "),
        ("fcos-lite0", ("train.batch=1",), 1e6, None),  # nothing to split
        ("fcos-lite0", ("train.batch=auto",), 1e6, None),  # looks at the memory itself
        ("fcos-lite0", ("train.checkpointing=true",), 1e6, None),  # takes less, nobody measured how much
        ("fcos-lite0", ("model.backbone=resnet18",), 1e6, None),
        ("fcos-lite2", (), 8e9, "may take 13 GB and 8 are free; train.accumulate=2 "),  # 576 x 960 pixels
    ],
)
def test_a_run_that_may_not_fit_says_so_before_its_first_step(monkeypatch, in_fp32, name, settings, free, told):
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    lines = memory.shortage(resolve(name, settings), CPU)
    assert bool(lines) == (told is not None)
    if told:
        assert told in lines[0]
        least = int(lines[0].split("train.accumulate=")[1].split()[0])
        again = memory.shortage(resolve(name, (*settings, f"train.accumulate={least}")), CPU)
        assert not again


def test_processes_share_the_memory(monkeypatch, in_fp32):
    monkeypatch.setattr(memory, "free_bytes", lambda _: 4.2e9)
    config = resolve("fcos-lite0", ())
    assert not memory.shortage(config, CPU, 2)  # half of the images each, half of the memory
    assert memory.shortage(config.override("train.batch=16"), CPU, 2)


def test_bf16_needs_about_half(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1e9)
    assert memory.step_room(CPU, "bf16") == pytest.approx(0.4e9 / 0.55)
    assert memory.step_room(CPU, "fp32") == pytest.approx(0.4e9)
