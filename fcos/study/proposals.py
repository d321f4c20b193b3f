"""FCOS as a proposer (1904.01355, table 6): AR@100 and AR@1000 of class-agnostic boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Config
from ..detections import Detections
from ..evaluation.coco import evaluate
from ..inference.proposals import proposer
from .asked import Asked, Judged
from .baselines import baseline_proposals, load_baseline
from .cached import Cached, cache, redecode_all
from .compared import PaperStudy, Row, number_bars

if TYPE_CHECKING:
    from ..data.dataset import Dataset


def run(asked: Asked) -> Judged:
    """The study as it is asked for; weights of torchvision's detectors beside (`baselines`)."""
    detector = asked.detector()
    dataset = asked.judged(detector)
    loaded = {path.name: load_baseline(path, detector.config.data) for path in asked.own["baseline"]}
    detector, dataset = proposer(detector), dataset.as_single_class()
    others = {f"{b.name} ({file})": baseline_proposals(b, dataset) for file, b in loaded.items()}
    return dataset, proposals_study(cache(detector, dataset, 0.0), dataset, detector.config, others)


def proposals_study(
    cached: Sequence[Cached],
    dataset: Dataset,
    config: Config,
    baselines: Mapping[str, Sequence[Detections]] | None,
) -> PaperStudy:
    """Class-agnostic proposals: AR@100 and AR@1000 with and without centerness (table 6).

    cached, config: of `fcos.inference.proposals.proposer` on the data as one class, cached with `least=0`. `baselines`:
    other detectors' proposals by name.
    """
    rows = [Row("RPN with FPN (paper)", {}, {"AR@100": 0.447, "AR@1000": 0.569})]
    rows += [Row(name, _recall(detections, dataset)) for name, detections in (baselines or {}).items()]
    rule = "sqrt" if config.decode.score == "class" else config.decode.score
    for name, score, paper in (("FCOS without centerness", "class", (0.480, 0.593)), ("FCOS", rule, (0.528, 0.603))):
        detections = redecode_all(cached, config, score=score)
        rows.append(Row(name, _recall(detections, dataset), {"AR@100": paper[0], "AR@1000": paper[1]}))
    note = f"each location gives the box of its most probable class; NMS over all classes at {config.decode.nms_iou:g}"
    return PaperStudy.of("proposals", dataset, rows, note=note, drawing=draw_recall)


def _recall(detections: Sequence[Detections], dataset: Dataset) -> dict[str, float]:
    ar = evaluate(detections, dataset, class_agnostic=True, max_detections=(100, 1000)).ar
    return {f"AR@{k}": ar[k] for k in (100, 1000)}


def draw_recall(study: PaperStudy, path: Path) -> None:
    """Bars of both recalls."""
    number_bars(study, path, ["AR@100", "AR@1000"])
