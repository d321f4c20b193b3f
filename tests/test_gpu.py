"""What a GPU must compute as a CPU does; only where there is one: pytest -m gpu."""

import math
import warnings

import numpy as np
import pytest
import torch
from matching import assert_same_detections
from tiny import learn, make_shapes, tiny_config

import fcos
from fcos.assign import assign_batch
from fcos.config import AssignConfig
from fcos.data.open import open_splits
from fcos.decode import decode
from fcos.network import weights
from fcos.points import make_points
from fcos.presets import preset
from fcos.training.loop import Trainer
from fcos.training.run import RunOptions
from fcos.types import Predictions, Target

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
PHOTOS = "astronaut.jpg", "cat.jpg", "coffee.jpg", "photographer.jpg"


@pytest.fixture(autouse=True)
def exact():
    """fp32 means fp32: TF32 keeps 10 bits."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def targets(images: int, size: tuple[int, int], boxes: int = 20) -> list[Target]:
    rng = np.random.default_rng(3)
    made = []
    for number in range(images):
        count = 0 if number == 1 else boxes
        corner = rng.uniform(0, 0.8, (count, 2)) * size[::-1]
        side = rng.uniform(2, 0.6 * min(size), (count, 2))
        made.append(
            Target(
                torch.tensor(np.hstack((corner, corner + side)), dtype=torch.float32),
                torch.from_numpy(rng.integers(0, 20, count)),
                torch.from_numpy(rng.random(count) < 0.2),
            )
        )
    return made


@pytest.mark.parametrize("rules", [{}, {"center_radius": 0.0}, {"area_rule": "float32", "range_rule": "strict"}])
def test_locations_learn_the_same_boxes(rules):
    cfg = preset("fcos-r50")
    assign = AssignConfig(**rules)
    drawn = targets(4, (320, 448))
    answers = [
        assign_batch(make_points((320, 448), cfg.model, assign, device), [t.to(device) for t in drawn], assign).cpu()
        for device in (torch.device("cpu"), torch.device("cuda"))
    ]
    assert torch.equal(*answers)
    assert (answers[0] >= 0).any()


def test_decoding_and_nms_are_the_same():
    cfg = preset("fcos-lite0")
    generator = torch.Generator().manual_seed(0)
    points = make_points((320, 448), cfg.model, cfg.assign, torch.device("cpu"))
    count = len(points.xy)
    pred = Predictions(
        torch.randn(2, count, 20, generator=generator) * 2 - 4,
        torch.rand(2, count, 4, generator=generator) * 90 + 1,
        torch.randn(2, count, generator=generator),
    )
    there = make_points((320, 448), cfg.model, cfg.assign, torch.device("cuda"))
    sizes = [(320, 448), (300, 400)]
    here = decode(pred, points, sizes, cfg.decode)
    for one, other in zip(decode(Predictions(*(x.cuda() for x in pred)), there, sizes, cfg.decode), here, strict=True):
        assert_same_detections(one, other, box=1e-3, score=1e-5)
        assert len(other.boxes)


def photos() -> list[str]:
    folder = weights.__file__.replace("network/weights.py", "assets/photos")
    return [f"{folder}/{name}" for name in PHOTOS]


def test_the_shipped_detector_finds_the_same():
    here = fcos.load("fcos-lite0", device="cpu", runtime="torch")
    there = fcos.load("fcos-lite0", device="cuda", runtime="torch")
    for one, other in zip(there(photos()), here(photos()), strict=True):
        assert_same_detections(one, other, box=0.1, score=1e-3)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_the_bits_find_the_same_objects(dtype):
    here = fcos.load("fcos-lite0", device="cpu", runtime="torch")
    there = fcos.load("fcos-lite0", device="cuda", runtime="torch", dtype=dtype)
    seen = 0
    for one, other in zip(there(photos()), here(photos()), strict=True):
        clear = other.scores > 0.4
        seen += int(clear.sum())
        for box, label in zip(other.boxes[clear].tolist(), other.labels[clear].tolist(), strict=True):
            same = one.labels.cpu() == label
            apart = (one.boxes.cpu() - torch.tensor(box)).abs().amax(dim=1)
            assert (same & (apart < 0.05 * max(box[2] - box[0], box[3] - box[1]) + 2)).any()
    assert seen


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_goes_on_after_a_stop_and_learns(tmp_path, precision):
    data = make_shapes(tmp_path / "data", {"train": 16, "val": 4})
    config = tiny_config(train={"precision": precision, "epochs": 8, "eval_every": 4})
    result = learn(config, data, tmp_path / "run", device="cuda")
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("loss")
    losses = [float(cell) for row in rows[1:] if (cell := row.split(",")[column])]
    assert all(map(math.isfinite, losses))
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    more = fcos.train(out=tmp_path / "run", resume=True, settings=["train.epochs=10"], device="cuda", quiet=True)
    assert more.steps == result.steps * 10 // 8


def test_the_first_step_is_that_of_a_cpu(tmp_path):
    data = make_shapes(tmp_path / "data", {"train": 8})
    rows = []
    for device in ("cpu", "cuda"):
        config = tiny_config(train={"precision": "fp32", "iterations": 1, "eval_every": 0})
        learn(config, data, tmp_path / device, device=device, holdout=0.0)
        head, row = (tmp_path / device / "metrics.csv").read_text().splitlines()
        rows.append(dict(zip(head.split(","), row.split(","), strict=True)))
    for name in ("loss", "grad_norm"):
        assert float(rows[1][name]) == pytest.approx(float(rows[0][name]), rel=1e-3)


LOOKS = 8  # at the device in a step: small tables that go there, positives, ignored boxes, the numbers of the step


def test_a_step_seldom_waits_for_the_device(tmp_path):
    """Every look at a tensor's value lets the device run dry."""
    data = open_splits(make_shapes(tmp_path / "data", {"train": 16}))
    config = tiny_config(train={"iterations": 8, "eval_every": 0, "log_every": 100, "save_every": 100})
    trainer = Trainer(config, data, RunOptions(tmp_path / "run", init="none", device="cuda", quiet=True))
    counts: list[int] = []
    step = trainer.train_step

    def counted(loader):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return step(loader)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                found = [w for w in seen if "synchroniz" in str(w.message)]
                counts.append(len(found))
                print([f"{w.filename.rsplit('/', 1)[-1]}:{w.lineno}" for w in found])

    trainer.train_step = counted
    trainer.run()
    assert len(counts) == 8
    assert max(counts[2:-1]) <= LOOKS, counts  # the last one is logged, with more numbers
