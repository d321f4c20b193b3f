"""AP by NMS threshold, score rule and low-score threshold; the best setting for a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import Config
from ..evaluation.coco import evaluate
from ..show.axes import COLORS, INK, new_figure, style
from ..system.progress import track
from ..system.terminal import percent
from .asked import Asked, Judged
from .cached import Cached, limit_by_class, redecode_all
from .compared import PaperStudy, Row

if TYPE_CHECKING:
    from ..data.dataset import Dataset

RULES: dict[str, dict[str, Any]] = {
    "cls": {"score": "class"},
    "cls*ctr": {"score": "product"},
    "sqrt(cls*ctr)": {"score": "sqrt"},
    "cls^.3*ctr^.7": {"score": "power", "power": 0.3},
    "cls^.7*ctr^.3": {"score": "power", "power": 0.7},
}
NMS_IOU = (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2)


def run(asked: Asked) -> Judged:
    """The study as it is asked for."""
    return asked.on_cached(nms_study)


def nms_study(cached: Sequence[Cached], dataset: Dataset, config: Config) -> PaperStudy:
    """AP by score rule and NMS threshold, then by low-score threshold at the best of them."""
    now = evaluate(redecode_all(cached, config), dataset).ap
    limited = limit_by_class(config)
    on = {} if limited.decode.threshold_on == config.decode.threshold_on else {"threshold_on": "class"}
    grid: dict[tuple[str, float], float] = {}
    cells = [(rule, least) for rule in RULES for least in NMS_IOU]
    for rule, least in track(cells, len(cells), "decoding"):
        detections = redecode_all(cached, limited, nms_iou=least, **RULES[rule])
        grid[rule, least] = evaluate(detections, dataset).ap
    rows = [Row(rule, {f"IoU {k:g}": grid[rule, k] for k in NMS_IOU}) for rule in RULES]

    def merit(cell: tuple[str, float]) -> tuple[float, bool, bool]:  # the present settings win a draw
        ap = -1.0 if np.isnan(grid[cell]) else round(grid[cell], 4)
        return ap, RULES[cell[0]]["score"] == config.decode.score, cell[1] == config.decode.nms_iou

    rule, least = max(grid, key=merit)
    best = {"nms_iou": least, **RULES[rule]}
    swept = {t: evaluate(redecode_all(cached, limited, threshold=t, **best), dataset).ap for t in THRESHOLDS}
    rows.append(Row("best, score >", {f"{t:g}": v for t, v in swept.items()}))
    known = {t: v for t, v in swept.items() if not np.isnan(v)}
    present = limited.decode.threshold
    threshold = max(known, key=lambda t: (round(known[t], 4), t == present, t)) if known else present
    advice = " ".join(f"decode.{k}={v}" for k, v in {**best, **on, "threshold": threshold}.items())
    note = f"AP of the present settings: {percent(now)}; of the best: {percent(swept.get(threshold, now))}"
    if np.isnan(now):
        advice, note = "", "there are no objects to judge by, so no setting is better than another"
    extra = {"grid": {rule: [grid[rule, k] for k in NMS_IOU] for rule in RULES}}
    return PaperStudy.of("nms", dataset, rows, advice=advice, note=note, extra=extra, drawing=draw_grid)


def draw_grid(study: PaperStudy, path: Path) -> None:
    """AP against the NMS threshold, a line for each rule."""
    figure = new_figure(8.4, 4.6)
    axes = figure.add_subplot()
    style(axes, "AP by NMS threshold and score rule", "NMS threshold, IoU", "AP, %")
    grid: dict[str, Any] = study.extra["grid"]
    for (rule, values), color in zip(grid.items(), COLORS, strict=False):
        line = "o--" if rule.startswith("sqrt") else "o-"  # ranks as its square does, and would hide it
        axes.plot(NMS_IOU, 100 * np.array(values), line, color=color, markersize=4, label=rule)
    axes.legend(frameon=False, labelcolor=INK)
    figure.savefig(path, format="png")
