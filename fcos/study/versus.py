"""FCOS against RetinaNet and an RPN at equal backbone, FPN, pixels, augmentation, schedule and loader, on any data
set (1904.01355, tables 3 and 6)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..config import Config
from ..data.classes import as_seen
from ..data.open import open_splits
from ..data.splits import taught_splits
from ..errors import ConfigError, DataError, FcosError, did_you_mean
from ..evaluation.coco import evaluate
from ..evaluation.uncertainty import QUICK, intervals
from ..inference.dataset import SILENT, Progress, predict_dataset
from ..inference.detector import Detector
from ..inference.proposals import proposer
from ..network import weights
from ..network.model import FCOS
from ..points import padded
from ..presets import DEFAULT
from ..system.environment import HASHES, LAST, check_same, data_hash
from ..system.files import check_folder, own, write_whole
from ..system.machine import Placement, pick_device
from ..system.readers import TEXT_LIMIT, read_json
from ..system.terminal import clock, json_ready, plural
from ..training.loop import Trainer
from ..training.output.folder import RunFolder, alone
from ..training.planning.minutes import MOST
from ..training.planning.sample import Make
from ..zoo.describe import settings_of
from .ablation import BASE, ladder
from .asked import Asked, Judged
from .cells import Stopwatch, check_batch, seconds_a_step, trained
from .rivals import Rival, RivalDetector, RivalProposer, RivalTrainer, rival
from .versus_table import Cell, Cost, Method, MethodRow, VersusStudy

if TYPE_CHECKING:
    from ..data.dataset import Dataset

_TIMED = 8  # images whose time is taken


def methods(config: Config) -> dict[str, Method]:
    """The rows by their key. FCOS of the paper has its head: towers of four dense convolutions with GroupNorm, as
    RetinaNet's are; "fcos-own" is the config as it is, left out where it is the paper's."""
    dense = {
        "head_convs": 4, "head_shared_convs": 0, "head_depthwise": False, "head_deformable": False, "head_bias": True,
        "head_norm": "group", "head_channels": config.model.fpn_channels, "scale": True, "extra_from": "fpn",
    }  # fmt: skip
    head: dict[str, Any] = {"model": dense}
    improved = ladder(config)[4][1].override(head)
    steps = {k: getattr(improved, k).model_dump() for k in ("model", "assign", "loss")}
    from_c5: dict[str, Any] = {"model": {"extra_from": "body"}}
    from_p5: dict[str, Any] = {"model": {"extra_from": "fpn"}}
    rows = {
        "retinanet": Method("RetinaNet", (from_c5,), "retinanet", paper={"AP": 0.359}),
        "retinanet-strong": Method("RetinaNet, GroupNorm, P5", (from_p5,), "retinanet-strong"),
        "fcos-2019": Method("FCOS, first paper", (BASE, head), paper={"AP": 0.371}),
        "fcos": Method("FCOS, improved", (steps,), paper={"AP": 0.387}),
        "fcos-own": Method(f"FCOS, {config.name} as it is", ()),
        "rpn": Method("RPN", (from_p5,), "rpn", True, {"AR@100": 0.447, "AR@1000": 0.569}),
        "fcos-rpn": Method("FCOS as RPN", (steps,), "", True, {"AR@100": 0.528, "AR@1000": 0.603}),
    }
    if improved == config:
        del rows["fcos-own"]
    return rows


@dataclass(frozen=True)
class Plan:
    """What to run: the settings that all rows share, keys of `methods` (empty: all), seeds, the folder, the device, and
    the time: `minutes` of training for each run in place of the steps or epochs of the settings. `report` gets a line
    before each run."""

    config: Config
    out: Path
    seeds: Sequence[int] = (0,)
    only: Sequence[str] = ()
    minutes: float | None = None
    device: str = "auto"
    report: Callable[[str], object] = Progress().report


def versus_study(data: Mapping[str, Dataset], plan: Plan) -> VersusStudy:
    """Train every method for every seed, learned from data["train"], judged by data["val"] after the last step.

    A run that has ended is read from its folder OUT/KEY-seedN, one that has begun goes on. `versus.txt` in OUT is
    written anew after every run. Raises FcosError where the folder holds runs with other settings or of other data, or
    another process is at it.
    """
    known = methods(plan.config)
    for key in plan.only:
        if key not in known:
            hint = did_you_mean(key, known, f"choose from {', '.join(known)}")
            raise ConfigError(f"--methods: there is no {key!r}; {hint}")
    check_batch(plan.config)
    for dataset in data.values():
        if absent := next((r.file_name for r in dataset.records if r.path is None), None):
            raise DataError(f"{dataset.root}: {absent} has no file; put the images where the annotations say")
    if not as_seen(data["val"], plan.config.data).counts().any():
        raise DataError(f"{data['val'].root}: no boxes in {_judged(data['val'])}, so there is nothing to judge by")
    check_folder(plan.out)
    with alone(plan.out, "study"):
        return _all(data, plan, known)


def _all(data: Mapping[str, Dataset], plan: Plan, known: Mapping[str, Method]) -> VersusStudy:
    chosen = {key: known[key] for key in (plan.only or known)}
    cells: dict[str, list[Cell]] = {key: [] for key in chosen}
    costs: dict[str, Cost] = {}
    study = VersusStudy(str(data["train"].root), _budget(plan), _judged(data["val"]), ())
    for seed in plan.seeds:
        for key, method in chosen.items():
            run = _Run(key, method, plan, data)
            if key not in costs:
                costs[key] = run.cost()
            number = f"run {sum(map(len, cells.values())) + 1} of {len(plan.seeds) * len(chosen)}"
            plan.report(f"{number}: {method.name}, seed {seed}, {run.foretold(seed, costs[key])}")
            cells[key].append(run.cell(seed, costs[key]))
            rows = tuple(MethodRow(k, m, costs[k], tuple(cells[k])) for k, m in chosen.items() if cells[k])
            study = VersusStudy(study.data, study.budget, study.judged, rows)
            write_whole(plan.out / "versus.txt", study.text() + "\n")
    return study


def _budget(plan: Plan) -> str:
    cfg = plan.config.train
    if plan.minutes is not None:
        on_cpu = pick_device(plan.device).type == "cpu"
        return f"{plan.minutes:g} minutes of training{' (processor time by threads)' if on_cpu else ''}"
    return plural(cfg.iterations, "step") if cfg.iterations else plural(cfg.epochs, "epoch")


def _judged(dataset: Dataset) -> str:
    return f"{plural(len(dataset), 'image')} of {dataset.split}"


class _Run:
    """One method on the data: what it costs, and a run of it."""

    def __init__(self, key: str, method: Method, plan: Plan, data: Mapping[str, Dataset]) -> None:
        self.key, self.method, self.plan, self.data = key, method, plan, data
        learn = {"val_loss": False, "plots": False, "lanes": 1}  # the rivals have no lanes
        one_class = method.one_class or plan.config.data.single_class
        fixed = {"data": {"single_class": one_class}, "train": learn}
        self.config = plan.config.override(*method.changes, fixed)
        self.judged = as_seen(data["val"], self.config.data)
        self.classes = as_seen(data["train"], self.config.data).classes
        self.device = pick_device(plan.device)

    @property
    def make(self) -> Make:
        if not self.method.rival:
            return Trainer
        return lambda config, data, options: RivalTrainer(self._rival, config, data, options)

    def _rival(self) -> Rival:
        return rival(self.method.rival, self.config, len(self.classes))

    def _fresh(self) -> FCOS:
        return self._rival() if self.method.rival else weights.build(self.config, len(self.classes))

    def cost(self) -> Cost:
        """Measured at the first call, then read: a resumed run must have the steps it began with."""
        file = self.plan.out / f"{self.key}.json"
        settings = self.config.override({"train": {"seed": 0}}).model_dump(mode="json")  # the same for every seed
        asked = {"settings": settings, "minutes": self.plan.minutes}
        if file.is_file():
            stored = read_json(file, TEXT_LIMIT)
            check_same(file, "a study", stored, asked)
            return Cost(**stored["cost"])
        step = seconds_a_step(self.config, {"train": self.data["train"]}, self.plan.device, self.make)
        network = self._fresh().eval()
        size = padded((self.config.data.size, self.config.data.size), self.config.data.divisor)
        with torch.inference_mode():
            outputs = sum(part.numel() for part in network(torch.zeros(1, 3, *size)))
        steps = 0 if self.plan.minutes is None else max(1, int(self.plan.minutes * 60 / step))
        parameters = sum(p.numel() for p in network.parameters())
        cost = Cost(steps, step, self._seconds_an_image(network), outputs, parameters)
        write_whole(file, json.dumps({**asked, "cost": cost._asdict()}, indent=1) + "\n")
        return cost

    def _seconds_an_image(self, network: FCOS) -> float:
        """Of reading, network and decoding, one image at a time; the first pass over them is not counted."""
        detector = self._detector(network.to(self.device))
        few = self.judged.subset(range(min(_TIMED, len(self.judged))))
        watch = Stopwatch(self.device)
        for _ in range(2):
            began = watch()
            predict_dataset(detector, few, 1, allow_missing=True, progress=SILENT)
        return (watch() - began) / len(few)

    def _detector(self, network: FCOS) -> Detector:
        kind = RivalDetector if self.method.rival else Detector
        return kind(network.eval().requires_grad_(False), self.config, self.classes, Placement(self.device))

    def _proposer(self, detector: Detector) -> Detector:
        if not self.method.rival:
            return proposer(detector)
        return RivalProposer(detector.network, self.config, self.judged_as_one().classes, detector.placement)

    def judged_as_one(self) -> Dataset:
        """The judged images with all objects as one class."""
        return self.judged.as_single_class()

    def foretold(self, seed: int, cost: Cost) -> str:
        """The steps of a run and about how long they take, at the pace that was measured; or that it is there."""
        if (self._folder(seed) / "judged.json").is_file():
            return "which is there already"
        cfg = self.config.train
        steps = cost.steps or cfg.iterations or cfg.epochs * math.ceil(len(self.data["train"]) / cfg.batch)
        return f"{plural(steps, 'step')}, about {clock(steps * cost.step)}"

    def _folder(self, seed: int) -> Path:
        return self.plan.out / f"{self.key}-seed{seed}"

    def cell(self, seed: int, cost: Cost) -> Cell:
        """Train with a seed and judge; read where that was done."""
        folder = self._folder(seed)
        budget = {"train": {"seed": seed, "linear_probe": 0, **({"iterations": cost.steps} if cost.steps else {})}}
        learned = {"train": self.data["train"]}
        config = trained(self.config.override(budget), learned, folder, self.plan.device, self.make)
        file = folder / "judged.json"
        asked = {"settings": config.model_dump(mode="json"), HASHES: data_hash(self.judged)}
        if file.is_file():
            stored = read_json(file, TEXT_LIMIT)
            if isinstance(stored, dict) and {k: stored.get(k) for k in asked} == asked:
                numbers: dict[str, Any] = {k: math.nan if v is None else v for k, v in stored["numbers"].items()}
                return Cell(**numbers)
        own(file)
        cell = self._judge(folder, int(RunFolder(folder, write=False).rows()[-1]["step"]))
        write_whole(file, json.dumps({**asked, "numbers": json_ready(asdict(cell))}, indent=1) + "\n")
        return cell

    def _judge(self, folder: Path, steps: int) -> Cell:
        network = self._fresh()
        state, *_ = weights.read(folder / LAST)
        weights.load_state(network, state, str(folder))
        detector = self._detector(network.to(self.device))
        ap = ap50 = low = high = math.nan
        if not self.method.one_class:
            detections = self._detect(detector, self.judged)
            metrics = evaluate(detections, self.judged)
            chance = intervals(detections, self.judged, QUICK)["AP"]
            ap, ap50, low, high = metrics.ap, metrics.ap50, chance.low, chance.high
        one = self.judged_as_one()
        proposals = self._detect(self._proposer(detector), one)
        ar = evaluate(proposals, one, class_agnostic=True, max_detections=(100, 1000)).ar
        return Cell(steps, ap, ap50, low, high, ar[100], ar[1000])

    def _detect(self, detector: Detector, dataset: Dataset) -> list[Any]:
        # lines about each pass over the images would be told again for every run
        return predict_dataset(detector, dataset, 1, allow_missing=True, progress=SILENT)


def run(asked: Asked) -> Judged:
    """The study as it is asked for: learned from is train, or trainval; judged by the split asked for, else val, else
    test."""
    own, settings = asked.own, list(asked.settings)
    minutes, epochs = own.get("minutes"), own.get("epochs")
    if minutes is not None and (epochs is not None or not 0 < minutes <= MOST):
        raise FcosError("--minutes is a time for each run, above 0, instead of --epochs, such as --minutes 10")
    given = {word.partition("=")[0].strip() for word in settings}
    if minutes is not None and (both := given & {"train.epochs", "train.iterations"}):
        raise FcosError(f"{min(both)} and --minutes both say how long to train; leave one out")
    settings += [f"train.epochs={epochs}", "train.iterations=0"] if epochs is not None else []
    config = settings_of(asked.model or DEFAULT, settings)
    only = [word.strip() for word in own.get("methods", "").split(",") if word.strip()]
    out, device = asked.out or Path("runs/versus"), asked.placing.get("device", "auto")
    plan = Plan(config, out, asked.seed_range(config), only, minutes, device)
    splits, split = open_splits(asked.source()), asked.split
    (taught,) = taught_splits(splits, None, asked.source())
    judged = split or next((k for k in ("val", "test") if k in splits), "val")
    if judged == split == taught:
        raise DataError(
            f"--split {split} is what is learned from; name another to judge by (it has {', '.join(splits)})"
        )
    if judged not in splits or judged == taught:
        fix = "" if split else "; to keep a part for that: fcos data split"
        had = ", ".join(splits)
        raise DataError(f"{asked.data} has no {judged} split to judge by beside {taught} (it has {had}){fix}")
    dataset = asked.limited(splits[judged])
    return dataset, versus_study({"train": splits[taught], "val": dataset}, plan)
