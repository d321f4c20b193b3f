"""What one reaches on other people's images in equal processor time: fcos beside torchvision's detector classes.

    python benchmarks/other_images.py [--data ../shared/data] [--seconds 150] [--seeds 1]
        [--sets bccd,voc3,voc3-800,coco,digits,small,tiny] [--ways starter,imagenet,tv-fcos,tv-retinanet,tv-ssdlite]
        [--out runs/other-images] [--short]

Ways: fcos as `fcos train --minutes` plans it, from the detector in the package or its backbone ("starter") and from
the ImageNet weights of its backbone, in bf16 where the processor has it; torchvision's FCOS, RetinaNet and SSD with
SSDLite's head and extra layers, as their classes compute, on the same backbone with the same ImageNet weights
(torchvision's own FPN of 256 channels for the first two). All see the same augmented images at the same size from the
same loader, in batches of the same size, with the same optimiser, schedule by the time used, and averaged weights.
SSD scales images to a square, as its class does. Only fcos learns from tiles and mosaics, where its plan says so.

The seconds are of training, in processor time, loading included, on one thread: other programs on the machine do not
count. Planning and judging are not counted for anybody. Each case is one line of OUT/cases.jsonl; a case that is there
is not done again, so the same command goes on where it was stopped. The table is printed at the end.

The starter of the package learned from VOC2007 trainval, of which the images of "voc3" are a part: its number there is
not one for unseen images. Those that judge are of VOC2007 test; in "voc3-800" they are the 800 of trainval behind the
100 learned from, which the starter has learned too.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from common import fill, print_heading
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import Conv2dNormActivation
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from fcos.config import Config
from fcos.data.dataset import Dataset
from fcos.data.images.reading import read_image
from fcos.data.loading.loader import train_loader
from fcos.data.open import open_dataset, open_splits
from fcos.demo.digits import NAMES, digits_dataset, make_scene
from fcos.detections import Detections
from fcos.errors import ConfigError
from fcos.evaluation.coco import evaluate
from fcos.evaluation.uncertainty import Draws, intervals
from fcos.inference.composite import OWN, Looks, compose
from fcos.inference.dataset import Progress, predict_dataset
from fcos.inference.load import load
from fcos.network.backbones import Backbone, load_backbone_weights
from fcos.presets import preset
from fcos.study.cells import seconds_a_step
from fcos.system.environment import environment
from fcos.training.clock import LOOK, Budget, Deadline
from fcos.training.data import NamedData, choose
from fcos.training.loop import Trainer
from fcos.training.optimizer import Average
from fcos.training.planning import rules
from fcos.training.planning.minutes import Wish, prepare
from fcos.training.planning.plan import CLOSING
from fcos.training.run import RunOptions
from fcos.types import Batch

SETS = ("bccd", "voc3", "voc3-800", "coco", "digits", "small", "tiny")
WAYS = ("starter", "imagenet", "tv-fcos", "tv-retinanet", "tv-ssdlite")
VOC3 = ("car", "cat", "chair")
CELL = 96  # pixels of a scene in the made sets: its digits are 16 to 48 pixels long
MODEL = "fcos-lite0"


class Case(NamedTuple):
    """One training run: the set, the way, the seed and the seconds of processor time."""

    set: str
    way: str
    seed: int
    seconds: float


class Trained(NamedTuple):
    """What a run came to: detections of each judged image, steps done, seconds used."""

    detections: list[Detections]
    steps: int
    used: float


# --------------------------------------------------------------------------- the sets


def opened(name: str, shared: Path, made: Path, short: bool) -> tuple[Dataset, Dataset]:
    """What a set is learned from, and what it is judged by."""
    if name == "bccd":
        splits = open_splits(shared / "bccd")
        learned, judged = splits["train"], splits["val"]
    elif name == "voc3":
        splits = {k: v.with_classes(VOC3) for k, v in open_splits(shared / "voc2007").items()}
        learned, judged = with_objects(splits["trainval"], 100), with_objects(splits["test"], 100)
    elif name == "voc3-800":
        whole = with_objects(open_splits(shared / "voc2007")["trainval"].with_classes(VOC3), 900)
        learned, judged = whole.subset(range(100)), whole.subset(range(100, 900))
    elif name == "coco":
        whole = open_dataset(shared / "coco_val2017_60")
        seen = np.zeros(len(whole.classes), int)
        for record in whole.records:
            seen[np.unique(record.labels[~record.ignore])] += 1
        common = [whole.classes.names[i] for i in np.argsort(-seen, kind="stable")[:4]]
        whole = whole.with_classes(common)
        learned, judged = (whole.subset([i for i in range(len(whole)) if (i % 3 == 2) == j]) for j in (False, True))
    elif name == "digits":
        folder = made / "digits"
        if not folder.is_dir():
            digits_dataset(folder, {"train": 200, "val": 60})
        splits = open_splits(folder)
        learned, judged = splits["train"], splits["val"]
    else:
        folder = made / name
        if not folder.is_dir():
            for split, count in (("train", 60), ("val", 20)):
                digit_grids(folder, split, count, MADE[name])
        splits = open_splits(folder)
        learned, judged = splits["train"], splits["val"]
    if short:
        learned, judged = (d.subset(range(min(8, len(d)))) for d in (learned, judged))
    return learned, judged


def with_objects(dataset: Dataset, most: int) -> Dataset:
    """The first images that show one of the classes."""
    return dataset.subset([i for i, r in enumerate(dataset.records) if (~r.ignore).any()][:most])


class Layout(NamedTuple):
    """A made set: its seed, cells of a side in pixels in rows and columns, the grey between them, and how many of the
    cells show a scene of the demo (None: all)."""

    seed: int
    shape: tuple[int, int]
    side: int = CELL
    ground: int = 0
    shown: int | None = None


MADE = {
    "small": Layout(7, (5, 7)),  # 672 x 480 pixels with about 85 digits of 16 to 48 pixels (100 detections are judged)
    "tiny": Layout(11, (15, 20), 64, 40, 24),  # 1280 x 960 with about 60 of 10 to 32
}


def digit_grids(folder: Path, split: str, count: int, layout: Layout) -> None:
    """Images full of small digits: scenes of the demo, side by side."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    (rows, columns), side = layout.shape, layout.side
    for number in range(count):
        rng = np.random.default_rng([layout.seed, ("train", "val").index(split), number])
        canvas = np.full((rows * side, columns * side, 3), layout.ground, np.uint8)
        cells = range(rows * columns)
        for cell in cells if layout.shown is None else rng.choice(cells, layout.shown, replace=False):
            scene = make_scene(rng, split, (CELL, CELL))
            row, column = divmod(int(cell), columns)
            top, left, scale = row * side, column * side, side / CELL
            canvas[top : top + side, left : left + side] = cv2.resize(
                scene.image, (side, side), interpolation=cv2.INTER_AREA
            )
            for (x1, y1, x2, y2), label in zip((scene.boxes * scale).tolist(), scene.labels.tolist(), strict=True):
                bbox = [x1 + left, y1 + top, x2 - x1, y2 - y1]
                boxes.append(
                    {"id": len(boxes) + 1, "image_id": number + 1, "category_id": label + 1, "bbox": bbox,
                     "area": bbox[2] * bbox[3], "iscrowd": 0}
                )  # fmt: skip
        name = f"{number:03d}.jpg"
        cv2.imwrite(str(folder / split / name), canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])
        images.append({"id": number + 1, "file_name": name, "height": canvas.shape[0], "width": canvas.shape[1]})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")


# --------------------------------------------------------------------------- fcos


class Planned(NamedTuple):
    """The settings of a run, and what it starts from, as of `fcos.train`."""

    config: Config
    init: str | None


class TrainingBudget(Budget):
    """Of which nothing goes but by training: neither planning nor judging counts."""

    @property
    def left(self) -> float:
        return self.minutes * 60 + CLOSING


def planned(
    learned: Dataset,
    seconds: float,
    init: str | None,
    model: str | None = MODEL,
    given: Mapping[str, object] = MappingProxyType({}),
) -> Planned:
    """What `fcos train --minutes` comes to, where so many seconds of processor time are for training, with a start, a
    model and settings that are given, or None."""

    def resolved(name: str, settings: Mapping[str, object]) -> Config:
        return preset(name).override({"data": {"workers": 0}}, nested(settings), nested(given))

    def timed(config: Config, *_: object, **__: object) -> rules.Pace:
        step = seconds_a_step(config, {"train": learned}, "cpu")
        return rules.Pace(step, 0.0, config.train.batch, config.data.size)

    wish = Wish(TrainingBudget(seconds / 60, 0.0), given, model, "cpu", init)
    try:
        made = prepare(wish, resolved, {"train": learned}, timed)
    except ConfigError as error:
        raise SystemExit(f"--seconds {seconds:g}: {error}") from None
    quiet = {"train": {"plots": False, "logger": [], "eval_every": 0}}
    return Planned(made.config.override(quiet), made.start.init)


def short(init: str | None) -> Planned:
    """Three steps that show only that a case runs."""
    return Planned(
        preset(MODEL).override(
            {"data": {"workers": 0, "size": 64, "max_size": 107, "train_sizes": (64,)}},
            {"train": {"batch": 2, "iterations": 3, "warmup": 1, "plots": False, "logger": [], "eval_every": 0}},
        ),
        init,
    )


def nested(settings: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """{"train.batch": 4} -> {"train": {"batch": 4}}."""
    result: dict[str, dict[str, object]] = {}
    for key, value in settings.items():
        room, name = key.split(".")
        result.setdefault(room, {})[name] = value
    return result


class ProcessorDeadline(Deadline):
    """Ends a run when its processor time is used up, counted from here, however long that takes by the clock."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.began, self.first = time.process_time(), (0, 0.0)  # the first look, and what was used by then

    def look(self, step: int, total: int) -> int:
        used = time.process_time() - self.began
        if not self.first[0]:
            self.first = (step, used)
        if used >= self.seconds:
            return step
        if self.revised or used < LOOK * self.seconds:
            return total
        self.revised = True
        pace = (used - self.first[1]) / max(step - self.first[0], 1)
        return min(total, step + max(1, int((self.seconds - used) / pace)))


def fcos_run(case: Case, plan: Planned, learned: Dataset, judged: Dataset) -> Trained:
    """Train fcos and judge it as `fcos eval` does, through tiles where it learned from tiles."""
    config = plan.config.override({"train": {"seed": case.seed}})
    with TemporaryDirectory() as folder:
        data = choose(NamedData({"train": learned}, holdout=0), config).data
        options = RunOptions(
            Path(folder), plan.init, device="cpu", quiet=True, deadline=ProcessorDeadline(case.seconds, 0)
        )
        began = time.process_time()
        trainer = Trainer(config, data, options)
        trainer.run()
        used = time.process_time() - began
        detector = compose([load(folder, device="cpu", runtime="own")], Looks(OWN))
        quiet = Progress(lambda _: None, True)
        return Trained(predict_dataset(detector, judged, 1, progress=quiet), trainer.step, used)


# --------------------------------------------------------------------------- torchvision


class Pyramid(nn.Module):
    """The backbone under torchvision's FPN with P6 and P7, as its classes want a body."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.out_channels = backbone, 256
        self.fpn = FeaturePyramidNetwork(backbone.channels, 256, LastLevelP6P7(256, 256))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn({str(i): level for i, level in enumerate(self.backbone(images))})


class Extras(nn.Module):
    """The backbone's maps at strides 16 and 32 and SSDLite's four further levels (arXiv 1801.04381)."""

    WIDTHS = (512, 256, 256, 128)

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = [*backbone.channels[1:], *self.WIDTHS]
        conv = partial(Conv2dNormActivation, activation_layer=nn.ReLU6)
        self.extra = nn.ModuleList(
            nn.Sequential(
                conv(inputs, width // 2, 1),
                conv(width // 2, width // 2, 3, stride=2, groups=width // 2),
                conv(width // 2, width, 1),
            )
            for inputs, width in zip(self.channels[1:], self.WIDTHS, strict=False)
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        levels = self.backbone(images)[1:]
        for block in self.extra:
            levels.append(block(levels[-1]))
        return {str(i): level for i, level in enumerate(levels)}


def rival(way: str, config: Config, classes: int, resized: bool) -> nn.Module:
    """torchvision's class of that name. `resized`: the images have their size already."""
    backbone = Backbone(config.model)
    load_backbone_weights(backbone, config.model)
    backbone.freeze(config.train.freeze_stages)
    pixels: dict[str, Any] = {k: [v / 255 for v in getattr(config.model, k)] for k in ("mean", "std")}
    pixels = {f"image_{k}": v for k, v in pixels.items()}
    side = config.data.size
    if way == "tv-ssdlite":
        body = Extras(backbone)
        boxes = DefaultBoxGenerator([[2, 3] for _ in body.channels], min_ratio=0.2, max_ratio=0.95)
        norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
        head = SSDLiteHead(body.channels, boxes.num_anchors_per_location(), classes + 1, norm)
        return SSD(body, boxes, (side, side), classes + 1, head=head, score_thresh=0.001, **pixels)
    pixels |= {"min_size": side, "max_size": config.data.max_size, "_skip_resize": resized}
    if way == "tv-fcos":
        anchors = AnchorGenerator(tuple((s,) for s in config.model.strides), ((1.0,),) * 5)
        return FCOS(Pyramid(backbone), classes, anchor_generator=anchors, score_thresh=0.01, **pixels)
    sizes = tuple((4 * s, int(4 * s * 2 ** (1 / 3)), int(4 * s * 2 ** (2 / 3))) for s in config.model.strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    return RetinaNet(Pyramid(backbone), classes, anchor_generator=anchors, score_thresh=0.01, **pixels)


def told(batch: Batch, shift: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """A batch as torchvision's classes take one; `shift`: their first class, 1 for SSD, whose 0 is the background."""
    images = [i[:, :h, :w].float() / 255 for i, (h, w) in zip(batch.images, batch.sizes, strict=True)]
    known = [{"boxes": t.boxes[~t.ignore], "labels": t.labels[~t.ignore] + shift} for t in batch.targets]
    return images, known


def rate(share: float, config: Config) -> float:
    """Learning rate at a share of the time: a tenth of warm-up, then a cosine, as in the plan of fcos."""
    warm = 0.1
    if share < warm:
        return config.train.lr * (config.train.warmup_start + (1 - config.train.warmup_start) * share / warm)
    progress = min(1.0, (share - warm) / (1 - warm))
    low = config.train.final_lr
    return config.train.lr * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))


def torchvision_run(case: Case, plan: Planned, learned: Dataset, judged: Dataset) -> Trained:
    """Train torchvision's class until the time is used, and judge its averaged weights."""
    torch.manual_seed(case.seed)
    config = plan.config.override({"train": {"seed": case.seed}, "data": {"tile": 0, "mosaic": 0.0}})
    shift = int(case.way == "tv-ssdlite")
    network = rival(case.way, config, len(learned.classes), resized=True)
    weights = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.train.weight_decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.train.lr, betas=(config.train.momentum, 0.999), foreach=True)
    average = Average(network, 0.9)
    endless = config.override({"train": {"iterations": 1_000_000}})
    steps, began = 0, time.process_time()
    for (batch,) in train_loader(choose(NamedData({"train": learned}, holdout=0), config).data["train"], endless):
        share = (time.process_time() - began) / case.seconds
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(share, config)
        images, known = told(batch, shift)
        loss = sum(network(images, known).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, config.train.clip)
        optimizer.step()
        steps += 1
        average.decay = max(0.9, 1 - 3 * max(share, 1e-3) / steps)  # 1 - 3 / all steps, as in the plan
        average.update(network, steps - 1)
    used = time.process_time() - began
    final = rival(case.way, config, len(learned.classes), resized=False)
    final.load_state_dict(average.network.state_dict())
    return Trained(detect(final.eval(), judged, shift), steps, used)


@torch.inference_mode()
def detect(network: nn.Module, judged: Dataset, shift: int) -> list[Detections]:
    """Of every judged image, one after another."""
    result = []
    for record in judged.records:
        image = torch.from_numpy(read_image(str(record.path))).permute(2, 0, 1).float() / 255
        (row,) = network([image])
        labels = row["labels"] - shift
        size = (int(image.shape[1]), int(image.shape[2]))
        result.append(Detections(row["boxes"], row["scores"], labels, torch.full_like(labels, -1), size=size))
    return result


# --------------------------------------------------------------------------- the cases


def run(case: Case, plan: Planned, learned: Dataset, judged: Dataset) -> dict[str, Any]:
    """The line of a case."""
    way = torchvision_run if case.way.startswith("tv-") else fcos_run
    detections, steps, used = way(case, plan, learned, judged)
    config = plan.config
    metrics = evaluate(detections, judged)
    chance = intervals(detections, judged, Draws(200))["AP"]
    tile = 0 if case.way.startswith("tv-") else config.data.tile
    return {
        **case._asdict(), "AP": metrics.ap, "AP50": metrics.ap50, "low": chance.low, "high": chance.high,
        "steps": steps, "used": round(used, 1), "size": config.data.size, "tile": tile, "batch": config.train.batch,
        "learned": len(learned), "judged": len(judged), "objects": int(judged.counts().sum()),
    }  # fmt: skip


def table(lines: Sequence[dict[str, Any]], ways: Sequence[str]) -> str:
    """AP in % by set and way, the mean over seeds, and steps; the last column: the better of fcos from ImageNet weights
    less the best of torchvision."""
    rows = ["| set | " + " | ".join(ways) + " | imagenet - best torchvision |", "|---" * (len(ways) + 2) + "|"]
    for name in dict.fromkeys(line["set"] for line in lines):
        cells, ap = [], {}
        for way in ways:
            mine = [line for line in lines if line["set"] == name and line["way"] == way]
            if mine:
                ap[way] = 100 * float(np.mean([line["AP"] for line in mine]))
                spread = f" ({100 * mine[0]['low']:.1f} to {100 * mine[0]['high']:.1f})" if len(mine) == 1 else ""
                cells.append(f"{ap[way]:.1f}{spread}, {round(np.mean([line['steps'] for line in mine]))} steps")
            else:
                cells.append("-")
        rivals = [v for k, v in ap.items() if k.startswith("tv-")]
        lead = f"{ap['imagenet'] - max(rivals):+.1f}" if rivals and "imagenet" in ap else "-"
        rows.append(f"| {name} | " + " | ".join(cells) + f" | {lead} |")
    return "\n".join(rows)


def words(known: Sequence[str]) -> Callable[[str], list[str]]:
    """For argparse: some of the known words, with commas."""

    def parse(text: str) -> list[str]:
        if unknown := [w for w in text.split(",") if w not in known]:
            raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; choose from {', '.join(known)}")
        return text.split(",")

    return parse


def cases_parser(doc: str | None, out: str, sets: Sequence[str]) -> argparse.ArgumentParser:
    """What this script and grid.py share: --data, --out, --seconds, --sets and --seeds."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of bccd, voc2007 and the others"
    )
    made.add_argument("--out", type=Path, default=Path(out))
    made.add_argument("--seconds", type=float, default=150.0, help="of processor time for training a case (150)")
    made.add_argument("--sets", type=words(SETS), default=list(sets))
    made.add_argument("--seeds", type=int, default=1)
    return made


def cases_options(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, with one thread and the folder there."""
    chosen = made.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    chosen.out.mkdir(parents=True, exist_ok=True)
    return chosen


def fill_rows(
    chosen: argparse.Namespace, file: Path, rows: Sequence[str], measured: Callable[..., dict[str, Any]]
) -> None:
    """A line of `file` for each set, row and seed: `measured(chosen, set, row, seed, seconds)`, unless it is there."""
    cases = [
        {"set": name, "row": row, "seed": seed, "seconds": chosen.seconds}
        for seed in range(chosen.seeds)
        for name in chosen.sets
        for row in rows
    ]
    fill(file, cases, partial(measured, chosen), 1e9)


def main() -> None:
    """All cases, those that are missing."""
    made = cases_parser(__doc__, "runs/other-images", SETS)
    made.add_argument("--ways", type=words(WAYS), default=list(WAYS))
    made.add_argument("--short", action="store_true", help="8 images and few steps: shows only that it runs")
    chosen = cases_options(made)
    file = chosen.out / ("short.jsonl" if chosen.short else "cases.jsonl")
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    done = {Case(*(line[field] for field in Case._fields)) for line in lines}
    print_heading()
    for seed in range(chosen.seeds):
        for name in chosen.sets:
            cases = [Case(name, way, seed, chosen.seconds) for way in chosen.ways]
            missing = [case for case in cases if case not in done]
            if not missing:
                continue
            learned, judged = opened(name, chosen.data, chosen.out, chosen.short)
            plans: dict[str | None, Planned] = {}
            for case in missing:
                init = None if case.way == "starter" else "none"
                if init not in plans:
                    plans[init] = short(init) if chosen.short else planned(learned, case.seconds, init)
                line = {**run(case, plans[init], learned, judged), "environment": environment({})}
                with file.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(line) + "\n")
                lines.append(line)
                print({k: v for k, v in line.items() if k != "environment"}, flush=True)
    here = [line for line in lines if line["seconds"] == chosen.seconds and line["set"] in chosen.sets]
    print(table(here, chosen.ways))


if __name__ == "__main__":
    main()
