"""What losses and assignments of later papers are worth in place of FCOS's own: equal steps from equal seeds.

    python benchmarks/losses.py DATA --out losses.jsonl [--methods fcos,iou,quality,...]
        [--model fcos-lite0] [--seeds 3] [--size 160] [--steps 300] [--batch 4] [--images 0] [--cpu 1e9]
    python benchmarks/losses.py --read losses.jsonl

`fcos`: center sampling, focal loss, centerness. The others change one thing of it:

  iou           the branch learns the IoU of the box in place of its centerness (`loss.quality=iou`)
  quality       quality focal loss: the class learns the IoU of its box, and is the score (arXiv 2006.04388)
  varifocal     the same by the varifocal loss (2008.13367)
  atss          assignment by ATSS, anchors of 8 strides (1912.02424)
  atss-quality  both
  task          assignment and classes by task alignment, 13 locations a box (2108.07755), but from the first step
  log, log 2    1 and 2 times |log(predicted / true)| of the distances is added to the box loss (`loss.log_weight`)
  bins          distances as distributions over 0 to 16 strides and their loss (2006.04388); the mean is the distance
  bins alone    the same without that loss (`model.regression=bins`)
  bins log      with `loss.log_weight=1` in its place
  exp 2         distances are exp(x), 2 strides at the start
  relu 4        relu(x) as `fcos`, 4 strides at the start in place of 2
  open 4        and what is below zero learns too

All begin from ImageNet weights of the backbone, and the runs of a seed see the same images in the same order. Each run
is a line in --out; runs that are there are not done again, and none is begun after --cpu seconds of the processor.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from common import compare_runs, cpu, runs_parser, short_data, short_settings
from torch import Tensor

from fcos.assign import assign_batch
from fcos.boxes import iou, to_corners, to_distances
from fcos.config import LossConfig, ModelConfig
from fcos.losses import Assignment, Normalizers, Positives, box_loss, centerness_target, fcos_loss
from fcos.network.model import BINS, FCOS, Head
from fcos.presets import preset
from fcos.training.loop import Trainer
from fcos.training.monitor import measure
from fcos.training.run import RunOptions
from fcos.training.step import Learned, Part, in_layout_of
from fcos.types import IGNORED, NEGATIVE, Batch, Losses, Points, Predictions, Target

NEAREST = 9  # locations of a level that ATSS looks at for a box
SIDE = 8.0  # of its anchors, in strides
ALIGNED = 13  # locations that learn a box by task alignment
SHARP = 6.0  # its power of the IoU
PART = 0.25  # weight of the loss of distributions


class Assigned(NamedTuple):
    """What the P locations of one image learn: the box [P] as `assign_batch` has it, and, where the method says so,
    what the class of each learns [P] in 0..1."""

    index: Tensor
    wanted: Tensor | None = None


Assign = Callable[[Predictions, Points, Target], Assigned]
ClassLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits, wanted, keep) [N,P,C] -> sum


class Method(NamedTuple):
    """How a run learns: its assignment (None: FCOS's), its loss of classes (None: focal, and centerness beside), its
    settings, whether distances are distributions, whether those below zero learn, and the first distances in strides
    (0: as ever)."""

    assign: Assign | None = None
    classes: ClassLoss | None = None
    settings: tuple[str, ...] = ()
    bins: bool = False
    open: bool = False
    start: float = 0.0


# --------------------------------------------------------------------------- assignments


def ignored(index: Tensor, points: Points, target: Target) -> Tensor:
    """`index` [P], with negatives inside boxes to ignore marked."""
    regions = target.boxes[target.ignore]
    if not len(regions):
        return index
    inside = (to_distances(points.xy[:, None], regions[None]).amin(dim=2) > 0).any(dim=1)
    return torch.where(inside & (index == NEGATIVE), IGNORED, index)


def owners(fits: Tensor, preference: Tensor, target: Target) -> Tensor:
    """[P] int64: of the boxes [G] that may be learned (`fits` [P,G]) the one of greatest `preference` [P,G], by its
    place among all boxes of the target."""
    place = (~target.ignore).nonzero()[:, 0]
    best, which = torch.where(fits, preference, -1.0).max(dim=1)
    return torch.where(best >= 0, place[which], NEGATIVE)


def nothing(points: Points) -> Tensor:
    return torch.full((len(points.xy),), NEGATIVE, dtype=torch.int64)


def atss(pred: Predictions, points: Points, target: Target) -> Assigned:
    """Of each level the nearest locations to a box; those learn it whose anchors overlap it by more than the mean and
    the deviation of these overlaps, and that lie inside."""
    boxes = target.boxes[~target.ignore]
    if not len(boxes):
        return Assigned(ignored(nothing(points), points, target))
    half = points.stride[:, None] * SIDE / 2
    overlap = iou(torch.cat((points.xy - half, points.xy + half), dim=1), boxes)  # [P,G]
    away = (points.xy[:, None] - (boxes[:, :2] + boxes[:, 2:])[None] / 2).square().sum(dim=2)
    near = torch.zeros_like(overlap, dtype=torch.bool)
    for grid in points.grids:
        rows = away[grid.start : grid.start + grid.cells].topk(min(NEAREST, grid.cells), dim=0, largest=False).indices
        near.scatter_(0, rows + grid.start, True)
    among = torch.where(near, overlap, torch.nan)
    mean = among.nanmean(dim=0)
    count = near.sum(dim=0)
    deviation = ((among - mean).square().nansum(dim=0) / (count - 1).clamp(min=1)).sqrt()
    inside = to_distances(points.xy[:, None], boxes[None]).amin(dim=2) > 0
    fits = near & inside & (overlap >= mean + deviation)
    return Assigned(ignored(owners(fits, overlap, target), points, target))


def task(pred: Predictions, points: Points, target: Target) -> Assigned:
    """The locations inside a box whose class probability times the sixth power of IoU is greatest learn it, each class
    as much as it is aligned."""
    boxes, labels = target.boxes[~target.ignore], target.labels[~target.ignore]
    if not len(boxes):
        index = ignored(nothing(points), points, target)
        return Assigned(index, torch.zeros(len(index)))
    overlap = iou(to_corners(points.xy, pred.distances.float()), boxes)  # [P,G]
    inside = to_distances(points.xy[:, None], boxes[None]).amin(dim=2) > 0
    aligned = torch.where(inside, pred.logits.float().sigmoid()[:, labels] * overlap.pow(SHARP), -1.0)
    fits = torch.zeros_like(inside).scatter_(0, aligned.topk(min(ALIGNED, len(aligned)), dim=0).indices, True) & inside
    index = owners(fits, overlap, target)
    mine = torch.zeros_like(fits)
    learning = (index >= 0).nonzero()[:, 0]
    number = torch.full((len(target.ignore),), -1).index_put_(
        ((~target.ignore).nonzero()[:, 0],), torch.arange(len(boxes))
    )
    mine[learning, number[index[learning]]] = True
    scale = torch.where(mine, overlap, 0).amax(dim=0) / torch.where(mine, aligned, 0).amax(dim=0).clamp(min=1e-9)
    wanted = torch.where(mine, aligned * scale, 0).amax(dim=1)
    return Assigned(ignored(index, points, target), wanted.clamp(0, 1))


# --------------------------------------------------------------------------- losses of classes


def quality_focal(logits: Tensor, wanted: Tensor, keep: Tensor) -> Tensor:
    terms = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (terms * (wanted - logits.sigmoid()).square() * keep).sum()


def varifocal(logits: Tensor, wanted: Tensor, keep: Tensor) -> Tensor:
    weight = torch.where(wanted > 0, wanted, 0.75 * logits.sigmoid().square()).detach() * keep
    return F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="sum")


# --------------------------------------------------------------------------- distances as distributions


class BinHead(Head):
    """A head of `model.regression=bins` that keeps what the last forward pass said of each side: `told` [N,P,4,BINS],
    how likely each number of strides is."""

    def __init__(self, cfg: ModelConfig, num_classes: int) -> None:
        super().__init__(cfg, num_classes)
        self._rows: list[Tensor] = []
        self.told = torch.empty(0)

    def forward(self, levels: Any) -> Predictions:
        self._rows = []
        pred = super().forward(levels)
        self.told = torch.cat(self._rows, dim=1)
        return pred

    def distances(self, x: Tensor, level: int) -> Tensor:
        likely = self.box_distances(x).float().unflatten(1, (4, BINS))
        self._rows.append(likely.permute(0, 3, 4, 1, 2).flatten(1, 2))
        steps = torch.arange(float(BINS)).view(BINS, 1, 1)
        return (likely.softmax(dim=2) * steps).sum(dim=2) * self.cfg.strides[level]

    def loss(self, pos: Positives) -> Tensor:
        """[M]: cross entropy of each positive with the two bins beside its distances, mean of the sides."""
        wanted = (pos.distances / pos.stride[:, None]).clamp(0, BINS - 1 - 1e-3)
        low = wanted.floor()
        logs = self.told[pos.image, pos.point].log_softmax(dim=-1)  # [M,4,BINS]
        at_low, at_high = (logs.gather(2, (low.long() + i)[..., None])[..., 0] for i in (0, 1))
        return -(at_low * (low + 1 - wanted) + at_high * (wanted - low)).mean(dim=1)


class OpenHead(Head):
    """Distances are relu(x) as ever, but what is below zero learns as what is above."""

    def distances(self, x: Tensor, level: int) -> Tensor:
        raw = self.box_distances(x).float()
        assert self.scales is not None
        raw = raw * self.scales[level]
        return (raw + (F.relu(raw) - raw).detach()) * self.cfg.strides[level]


# --------------------------------------------------------------------------- the runs

METHODS = {
    "fcos": Method(),
    "iou": Method(settings=("loss.quality=iou",)),
    "quality": Method(classes=quality_focal, settings=("decode.score=class",)),
    "varifocal": Method(classes=varifocal, settings=("decode.score=class",)),
    "atss": Method(assign=atss),
    "atss-quality": Method(assign=atss, classes=quality_focal, settings=("decode.score=class",)),
    "task": Method(assign=task, classes=quality_focal, settings=("decode.score=class",)),
    "bins": Method(settings=("model.regression=bins",), bins=True),
    "bins alone": Method(settings=("model.regression=bins",)),
    "bins log": Method(settings=("model.regression=bins", "loss.log_weight=1")),
    "exp 2": Method(settings=("model.regression=exp",), start=2.0),
    "log": Method(settings=("loss.log_weight=1",)),
    "log 2": Method(settings=("loss.log_weight=2",)),
    "open 4": Method(open=True, start=4.0),
    "relu 4": Method(start=4.0),
}


class MethodTrainer(Trainer):
    """The training program with the assignment and losses of a method."""

    def __init__(self, method: Method, *rest: Any) -> None:
        self.method = method
        super().__init__(*rest)

    def build(self) -> FCOS:
        network = super().build()
        if self.method.bins:
            network.head = BinHead(network.cfg, len(self.classes))
        if self.method.open:
            network.head = OpenHead(network.cfg, len(self.classes))
        if self.method.start:
            raw = math.log(self.method.start) if network.cfg.regression == "exp" else self.method.start
            torch.nn.init.constant_(network.head.box_distances.bias, raw)
        return network

    def learn(self, batches: list[Batch]) -> Learned:
        if self.method == Method(settings=self.method.settings, start=self.method.start):
            return super().learn(batches)
        (batch,) = batches
        points = self.points(batch)
        pred = Predictions(*self.model(in_layout_of(self.model, batch.images)))
        with torch.no_grad():
            index, wanted = self.assigned(pred, points, batch)
        learns = Assignment.of(points, batch.targets, index)
        pos = learns.positives
        losses, norm = method_loss(pred, learns, wanted, self.method, self.config.loss)
        if self.method.bins:
            head = self.network.head
            assert isinstance(head, BinHead)
            weights = centerness_target(pos.distances)
            more = PART * (head.loss(pos) * weights).sum() / norm.box
            losses = losses._replace(box=losses.box + more)
        self.fabric.backward(losses.total())
        part = Part(Losses(*(x.detach() for x in losses)), pred.distances.detach()[pos.image, pos.point].float(), pos)
        sums = measure([part], points, norm, self.config.loss, len(self.classes))
        return Learned(sums, [part.losses], norm)

    def assigned(self, pred: Predictions, points: Points, batch: Batch) -> tuple[Tensor, Tensor | None]:
        if self.method.assign is None:
            return assign_batch(points, batch.targets, self.config.assign), None
        each = [
            self.method.assign(Predictions(*(value[i] for value in pred)), points, target)
            for i, target in enumerate(batch.targets)
        ]
        wanted = [a.wanted for a in each if a.wanted is not None]
        return torch.stack([a.index for a in each]), torch.stack(wanted) if wanted else None


def method_loss(
    pred: Predictions, learns: Assignment, wanted: Tensor | None, method: Method, cfg: LossConfig
) -> tuple[Losses, Normalizers]:
    """The losses of a batch and what divided them. `wanted` [N,P]: what classes learn, None for the IoU of the box."""
    pos = learns.positives
    one = pred.logits.new_ones(())
    weights = centerness_target(pos.distances)
    norm = Normalizers(one * max(1, len(pos.box)), weights.sum().clamp(min=1e-6), one * max(1, len(pos.box)))
    if method.classes is None:
        return fcos_loss(pred, learns, cfg, STRIDES, norm), norm
    predicted = pred.distances[pos.image, pos.point]
    unit = pos.stride[:, None]
    boxes, overlap = box_loss(predicted / unit, pos.distances / unit, cfg)
    if wanted is None:
        told = overlap.detach().clamp(0, 1)
    else:
        told = weights = wanted[pos.image, pos.point]
        total = told.sum().clamp(min=1.0)
        norm = Normalizers(total, total, total)
    target = torch.zeros_like(pred.logits)
    target[pos.image, pos.point, pos.label] = told.to(target.dtype)
    keep = (learns.index != IGNORED).to(target.dtype)[..., None].expand_as(target)
    classes = method.classes(pred.logits, target, keep)
    return Losses(classes / norm.classification, (boxes * weights).sum() / norm.box, one * 0), norm


STRIDES = preset("fcos-lite0").model  # distances are learned in strides


def learn(arguments: argparse.Namespace, seed: int, method: str) -> dict[str, Any]:
    chosen = METHODS[method]
    config = preset(arguments.model).override(*short_settings(arguments, seed))
    config = config.override("train.lanes=1", "train.precision=fp32", *chosen.settings)
    data = short_data(arguments)
    began = cpu()
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(Path(folder) / "run", init="none", quiet=True)
        result = MethodTrainer(chosen, config, data, options).run()
    assert result.metrics is not None
    found = {"AP": result.metrics.ap, "AP50": result.metrics.ap50, "AP75": result.metrics.ap75}
    line = {"steps": arguments.steps, "size": arguments.size, **found, "cpu": round(cpu() - began, 1)}
    print(arguments.data, seed, method, line, flush=True)
    return line


def main() -> None:
    parser = runs_parser(__doc__, steps=300)
    parser.add_argument("--model", default="fcos-lite0")
    parser.add_argument("--methods", default=",".join(METHODS))
    arguments = parser.parse_args()
    compare_runs(arguments, "method", arguments.methods.split(","), learn)


if __name__ == "__main__":
    main()
