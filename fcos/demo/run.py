"""`fcos demo`: the whole job on what the package ships, offline: make data, train, evaluate, detect, look."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import AssignConfig, Config, DataConfig, ModelConfig, TrainConfig
from ..data.open import open_splits
from ..evaluation.coco import Metrics, evaluate
from ..inference.dataset import predict_dataset
from ..inference.load import load
from ..show.draw import sheet
from ..show.judged import draw_judged, save_image
from ..system.environment import BEST, METRICS_FILE
from ..system.files import write_whole
from ..system.terminal import clock
from ..training.output.console import Console
from ..training.output.images import write_page
from ..training.program import train
from ..zoo.models import known_models
from .digits import digits_dataset, photographs

SCENES = {"train": 1000, "val": 60, "test": 200}
SIDE = 144  # pixels of a scene
WANTED = 0.90  # AP50 on held-out scenes


@dataclass(frozen=True)
class DemoResult:
    """Where the demo wrote, what it reached on held-out scenes, and how long it took."""

    folder: Path
    metrics: Metrics
    seconds: float


def demo_config() -> Config:
    """A small FCOS that learns handwritten digits from nothing in about two minutes on two cores."""
    return Config(
        name="fcos-digits",
        model=ModelConfig(
            backbone="plain",
            backbone_weights="none",
            backbone_norm="batch",
            strides=(8, 16, 32),
            fpn_channels=48,
            head_channels=48,
            head_convs=1,
        ),
        assign=AssignConfig(ranges=(24.0, 48.0)),
        data=DataConfig(size=SIDE, max_size=SIDE, divisor=16, flip=0.0, color=0.2, workers=1),
        train=TrainConfig(
            epochs=13,
            channels_last=True,
            batch=8,
            optimizer="adamw",
            lr=3e-3,
            weight_decay=0.02,
            decay_norm=False,
            schedule="cosine",
            warmup=60,
            clip=10.0,
            ema=0.99,
            eval_every=0,
            save_every=10_000,
        ),
    )


def demo(out: Path, *, device: str, epochs: int | None) -> DemoResult:
    """Run the demo in the folder `out`, which must not hold an earlier one."""
    began = time.perf_counter()
    console = Console()
    _photographs(out, device, console)

    console.note("1. composing scenes from real handwritten digits (UCI, CC BY 4.0) over photographs")
    data = digits_dataset(out / "data", SCENES, size=(SIDE, SIDE))
    splits = open_splits(data)
    console.note("2. training a small FCOS on them, from random weights")
    config = demo_config()
    if epochs is not None:
        config = config.override({"train": {"epochs": epochs}})
    learned = {"train": splits["train"], "val": splits["val"]}
    train(learned, model=config, out=out / "run", init="none", device=device)

    console.note("3. judging it on held-out scenes, made of digits it has never seen")
    detector = load(out / "run", runtime="torch", device=device)
    detections = predict_dataset(detector, splits["test"], batch=16)
    metrics = evaluate(detections, splits["test"])
    drawn = draw_judged(splits["test"], detections, score=metrics.threshold)
    if drawn is not None:
        save_image(out / "detections.jpg", drawn)
    seconds = time.perf_counter() - began
    write_whole(out / METRICS_FILE, json.dumps(metrics.to_dict(), indent=1))
    write_page(
        out,
        "fcos demo",
        [
            ("AP50", f"{metrics.ap50:.3f} on {metrics.images} held-out scenes (wanted: {WANTED:.2f})"),
            ("AP", f"{metrics.ap:.3f}"),
            ("time", clock(seconds)),
            (
                "model",
                f"{config.model.backbone} backbone, {config.data.size} px",
            ),
            ("weights", str(out / "run" / BEST)),
        ],
        [
            ("photographs.jpg", "What the shipped detector finds in four photographs"),
            ("detections.jpg", "Held-out scenes: truth on the left, detections on the right"),
            ("run/results.png", "The training run"),
            ("run/train_batch_0.jpg", "The first batch; dots are the locations that learn, coloured by level"),
        ],
    )
    verdict = "as expected" if metrics.ap50 >= WANTED else f"below the {WANTED:.2f} it should reach"
    scenes = f"{metrics.images} held-out scenes"
    console.note(f"AP50 {metrics.ap50:.3f}, AP {metrics.ap:.3f} on {scenes}, {verdict}, in {clock(seconds)} minutes")
    console.note(f"look:  {out / 'report.html'}, {out / 'detections.jpg'}")
    console.note("next:  fcos data info YOUR_DATA")
    console.note("       fcos train YOUR_DATA --minutes 15")
    return DemoResult(out, metrics, seconds)


def _photographs(out: Path, device: str, console: Console) -> None:
    """Detect in the bundled photographs with the shipped weights, where the package has them."""
    if known_models()["fcos-lite0"].path() is None:
        return
    detector = load("fcos-lite0", runtime="torch", device=device)
    images = []
    for path in photographs():
        detections = detector(path)
        images.append(np.asarray(detections.draw()))
        told = detections.summary() if len(detections) else f"none of the {len(detector.classes)} classes it knows"
        console.note(f"   {path.name}: {told}")
    save_image(out / "photographs.jpg", sheet(images, columns=2, cell=560))
