"""A detector and a data set small enough for a test."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch

from fcos.cli import main
from fcos.config import AssignConfig, Config, DataConfig, ModelConfig, TrainConfig

NAMES = ("disc", "square")


def tiny_config(**sections) -> Config:
    """Two levels, a body of half a million weights, 64-pixel images."""
    base = Config(
        name="tiny",
        model=ModelConfig(
            backbone="test_resnet",
            backbone_weights="none",
            strides=(8, 16),
            fpn_channels=16,
            head_channels=16,
            head_convs=1,
        ),
        assign=AssignConfig(ranges=(16.0,)),
        data=DataConfig(size=64, max_size=96, workers=0),
        train=TrainConfig(
            epochs=1,
            batch=4,
            warmup=2,
            log_every=1,
            optimizer="adamw",
            lr=0.003,
            schedule="cosine",
            plots=False,
            precision="fp32",  # the same on every machine
        ),
    )
    return base.override(sections)


def make_shapes(folder: Path, splits: dict[str, int], seed: int = 0) -> Path:
    """Discs and squares on grey images, as COCO JSON with ids that have gaps; every fifth image is empty."""
    rng = np.random.default_rng(seed)
    for split, count in splits.items():
        images, annotations = [], []
        (folder / "images" / split).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((64, 80, 3), 90, np.uint8) + rng.integers(0, 20, (64, 80, 3), dtype=np.uint8)
            for _ in range(0 if i % 5 == 4 else int(rng.integers(1, 3))):
                side = int(rng.integers(12, 30))
                x, y = int(rng.integers(0, 80 - side)), int(rng.integers(0, 64 - side))
                kind = int(rng.integers(0, 2))
                color = (230, 60, 40) if kind else (40, 80, 240)
                if kind:
                    pixels[y : y + side, x : x + side] = color
                else:
                    cv2.circle(pixels, (x + side // 2, y + side // 2), side // 2, color, -1)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": 10 * i + 3, "category_id": 7 if kind else 2,
                     "bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}
                )  # fmt: skip
            name = f"image {i} ü.png"
            cv2.imencode(".png", pixels[..., ::-1])[1].tofile(folder / "images" / split / name)
            images.append({"id": 10 * i + 3, "file_name": name, "width": 80, "height": 64})
        categories = [{"id": 2, "name": "disc"}, {"id": 7, "name": "square"}]
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (folder / f"instances_{split}.json").write_text(text)
    return folder


def relabel(folder: Path, split: str) -> Path:
    """Correct the labels of `make_shapes` in place: every disc becomes a square and the other way round."""
    file = folder / f"instances_{split}.json"
    told = json.loads(file.read_text())
    for one in told["annotations"]:
        one["category_id"] = {2: 7, 7: 2}[one["category_id"]]
    file.write_text(json.dumps(told))
    return folder


def options(out: Path, **changes):
    """How a test trains: from nothing, on the CPU, in silence."""
    from fcos.training.run import RunOptions

    return RunOptions(**{"out": out, "init": "none", "device": "cpu", "quiet": True, **changes})


def learn(config: Config, data, out: Path, **changes):
    """`fcos.train` as a test calls it."""
    from fcos.training.program import train

    return train(data, **{"model": config, "out": out, "init": "none", "device": "cpu", "quiet": True, **changes})


def one_step(trainer, batches):
    """A training step over `batches`, which stand on the CPU."""
    from fcos.training.prefetch import Ahead

    return trainer.train_step(Ahead(iter([batches]), trainer.fabric.device))


def equal_states(a, b) -> bool:
    """Bit-equal state dicts."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def fcos(capsys, *arguments):
    """(exit code, stdout, stderr) of a command line."""
    try:
        main([str(a) for a in arguments])
        code = 0
    except SystemExit as stop:
        code = 0 if stop.code is None else int(stop.code)
    out = capsys.readouterr()
    return code, out.out, out.err
