"""What training takes of the memory: the table beside torch's own count, and the line before a run."""

from pathlib import Path

import pytest
import torch
from tiny import learn, make_shapes, tiny_config

from fcos.network.weights import build
from fcos.presets import resolve
from fcos.training import memory
from fcos.training.batch_size import made_up_step, peak_bytes
from fcos.training.setup import make_ready

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """fp32 on two threads, whatever this machine has."""
    monkeypatch.setattr(memory, "training_dtype", lambda precision, device: "bf16" if precision == "bf16" else "fp32")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.mark.parametrize(
    ("name", "side", "classes"),
    [
        ("fcos-lite0", 192, 3),
        ("fcos-lite0", 128, 80),
        ("fcos-lite0", 128, 1203),
        ("fcos-lite1", 160, 3),
        ("fcos-lite2", 160, 3),
    ],
)
def test_the_memory_of_a_step_is_as_it_was_measured(name, side, classes):
    """Against torch's own storages, of the network as it trains: what two more images take."""
    config = resolve(name, [f"data.size={side}", f"data.max_size={side * 5 // 3}", f"data.train_sizes=[{side}]"])
    network = build(config, classes)
    make_ready(network, config, CPU)
    two, four = (peak_bytes(lambda n=n: made_up_step(network.train(), config, CPU, n), CPU) for n in (2, 4))
    expected = memory.step_bytes(config.override("train.batch=2", "train.accumulate=1"), CPU, classes)
    assert four - two == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("name", "settings", "free", "told"),
    [
        # 8 images of 384 x 640 pixels, 610 bytes each: 1.20 GB, and 4.5 times that in all
        ("fcos-lite0", (), 5.5e9, None),
        ("fcos-lite0", (), 5.4e9, "may take 5.5 GB and 5.4 are free; train.accumulate=2 takes 2.7 and"),
        ("fcos-lite0", (), 1.5e9, "may take 5.5 GB and 1.5 are free; train.accumulate=4 takes 1.4 and"),
        ("fcos-lite0", (), 1e9, "train.accumulate=4 takes 1.4 and learns the same; a smaller data.size"),  # two lanes
        ("fcos-lite0", ("train.lanes=1",), 1e9, "train.accumulate=8 takes 0.7 and learns the same"),
        ("fcos-lite0", ("train.accumulate=2",), 5.4e9, None),
        ("fcos-lite0", ("train.accumulate=2",), 2.5e9, "may take 2.7 GB and 2.5 are free; train.accumulate=4 "),
        ("fcos-lite0", ("train.batch=1",), 0, "may take 0.7 GB and 0.0 are free; a smaller data.size"),
        ("fcos-lite0", ("train.batch=auto",), 0, None),  # looks at the memory itself
        ("fcos-lite0", ("train.checkpointing=true",), 0, None),  # takes less, nobody measured how much
        ("fcos-lite0", ("train.freeze_stages=0",), 0, None),
        ("fcos-lite0", ("model.backbone=resnet18",), 0, None),
        ("fcos-lite2", (), 16e9, "may take 16.8 GB and 16.0 are free; train.accumulate=2 "),  # 576 x 960 pixels
        ("fcos-lite2", ("train.precision=bf16",), 16e9, None),
    ],
)
def test_a_run_that_may_not_fit_says_so(monkeypatch, name, settings, free, told):
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    lines = memory.shortage(resolve(name, settings), CPU, 1)
    assert len(lines) == (told is not None)
    assert told is None or told in lines[0]


@pytest.mark.parametrize(("world", "here", "told"), [(2, 2, False), (4, 2, False), (4, 4, True), (4, 1, False)])
def test_the_processes_of_a_machine_share_its_memory(monkeypatch, world, here, told):
    """16 images: two processes have 8 each, four have 4. A process of 4 comes to 2.7 GB."""
    monkeypatch.setattr(memory, "free_bytes", lambda _: 11e9 if world == 2 else 10.8e9)
    config = resolve("fcos-lite0", ("train.batch=16",))
    assert bool(memory.shortage(config, CPU, 1, world, here)) is told


def test_the_line_stands_before_the_first_step(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr("fcos.training.loop.shortage", lambda *_: ["memory    as this test says"])
    config = tiny_config(train={"iterations": 1})
    learn(config, make_shapes(tmp_path / "shapes", {"train": 4}), tmp_path / "run", quiet=False)
    told = capfd.readouterr().err
    assert told.index("as this test says") < told.index("  steps  ")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say what a process holds")
def test_memory_of_a_run_before_is_free_again():
    """glibc keeps it, as it was asked to, until somebody asks what is free."""

    def held():
        return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

    memory.keep_memory()
    blocks = [torch.ones(1 << 18) for _ in range(400)]  # 400 MB
    kept = torch.ones(1 << 18)  # above them: without it the top of the heap would shrink anyway
    during = held()
    del blocks
    assert held() > during - 1e8
    memory.free_bytes(CPU)
    assert held() < during - 3e8
    del kept
