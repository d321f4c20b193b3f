"""How suspicious each annotation of an image is, in each of five ways, by the evidence of a model that has not learned
from it.

The scores look at all locations before NMS, so that a second class behind the first, or a box that NMS would drop,
still speaks for an annotation. Each is a product of what is seen and of what is not, in 0..1:
- missing: the score of a peak, times how little any annotation explains it;
- class: the score of the best other class at the annotated box, times one minus the score of its own;
- shifted: the score of the best box of its class near by, times one minus the overlap;
- spurious: one minus the score of the best box of any class at the annotated box;
- duplicate: the overlap of two annotations, times one minus the score of a second object there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data.dataset import Record
from .evidence import Evidence, inside, overlaps
from .inject import CLASS, DUPLICATE, MISSING, SHIFTED, SPURIOUS


@dataclass(frozen=True)
class Suspect:
    """One thing that may be wrong in one image.

    kind: of KINDS. score 0..1: how suspicious. row: the annotation, -1 for a missing box; other: the second annotation
    of a duplicate, else -1. box [4] xyxy and label: what the model says in its place (for a box too many and a
    duplicate: the annotation itself). seen: the model's score of that; own: its score of what is annotated; overlap:
    IoU of both. given: the label that is annotated, -1 for a missing box. facts: what else may tell, for `ranking`.
    """

    kind: str
    score: float
    row: int
    other: int
    box: tuple[float, float, float, float]
    label: int
    seen: float
    own: float
    overlap: float
    given: int = -1
    facts: tuple[float, ...] = ()


def suspects(evidence: Evidence, record: Record) -> list[Suspect]:
    """Every annotation in every way that makes sense for it, and every peak that may be a missing box."""
    scene = _Scene(evidence, record)
    return [*scene.missing(), *scene.classes(), *scene.shifted(), *scene.spurious(), *scene.duplicates()]


class _Scene:
    """An image's annotations against its evidence. K locations, G annotations that are not ignored, D peaks."""

    def __init__(self, evidence: Evidence, record: Record) -> None:
        self.e = evidence
        self.rows = np.flatnonzero(~record.ignore)
        self.boxes, self.labels = record.boxes[self.rows], record.labels[self.rows]
        self.ignored = record.boxes[record.ignore]
        self.ignored_labels = record.labels[record.ignore]
        self.overlap = overlaps(evidence.boxes, self.boxes)  # [K,G]
        own = evidence.scores[:, self.labels]  # [K,G]
        self.own = own
        self.known = evidence.known[self.labels]
        beside = overlaps(self.boxes, self.boxes) * (1 - np.eye(len(self.rows)))
        self.crowd = beside.max(axis=1, initial=0.0)
        self.size = record.size

    def _suspect(
        self,
        what: tuple[str, float],
        at: int,
        seen: tuple[np.ndarray, int],
        numbers: tuple[float, float, float],
        facts: Sequence[float] = (),
    ) -> Suspect:
        """what: kind and score; at: number of the annotation; seen: box and label; numbers: seen, own, overlap."""
        (kind, score), (box, label) = what, seen
        x1, y1, x2, y2 = (float(v) for v in box)
        row = int(self.rows[at]) if at >= 0 else -1
        given = int(self.labels[at]) if at >= 0 else -1
        shape = _shape(box if at < 0 else self.boxes[at], self.size)
        more = tuple(float(v) for v in (*shape, *facts))
        looks, own, overlap = (float(v) for v in numbers)
        return Suspect(
            kind, float(score), row, -1, (x1, y1, x2, y2), int(label), looks, own, overlap, given=given, facts=more
        )

    def missing(self) -> list[Suspect]:
        e = self.e
        if not len(e.peaks):
            return []
        every = np.concatenate([self.boxes, self.ignored])
        labels = np.concatenate([self.labels, self.ignored_labels])
        explained, nearest, parts = np.zeros(len(e.peaks)), np.zeros(len(e.peaks)), np.zeros((len(e.peaks), 4))
        if len(every):
            iou, part = overlaps(e.peaks, every), inside(e.peaks, every)
            whole = inside(every, e.peaks).T
            same = labels[None] == e.peak_labels[:, None]
            nearest = iou.max(axis=1)
            parts = np.stack(
                [(iou * same).max(axis=1), (part * same).max(axis=1), part.max(axis=1), whole.max(axis=1)], 1
            )
            # the same class near by: a poorer box of that object, a part of it, or the group that it is in
            mine = np.maximum.reduce([_step(iou, 0.1, 0.45), _step(part, 0.5, 0.9), 0.7 * _step(whole, 0.6, 0.95)])
            other = _step(iou, 0.35, 0.65)  # another class in that place: `class` asks for it
            explained = np.where(same, mine, other).max(axis=1)
            if len(self.ignored):
                crowd = _step(inside(e.peaks, self.ignored), 0.4, 0.7).max(axis=1)
                explained = np.maximum(explained, crowd)
        # a peak beside a better one of its class or place is a part of that
        better = overlaps(e.peaks, e.peaks) * (e.peak_scores[None] > e.peak_scores[:, None])
        within = inside(e.peaks, e.peaks) * (e.peak_scores[None] > e.peak_scores[:, None])
        alike = e.peak_labels[None] == e.peak_labels[:, None]
        second = np.maximum(_step(better, 0.3, 0.6), _step(within, 0.6, 0.95) * alike).max(axis=1, initial=0.0)
        value = e.peak_scores * (1 - explained) * (1 - second)
        agree = np.log1p(e.votes)
        # the best other class in the same place
        rival = (overlaps(e.peaks, e.peaks) > 0.5) * ~alike * e.peak_scores[None]
        return [
            self._suspect(
                (MISSING, value[d]),
                -1,
                (e.peaks[d], e.peak_labels[d]),
                (e.peak_scores[d], 0.0, nearest[d]),
                (*parts[d], second[d], agree[d], rival[d].max(initial=0.0), explained[d]),
            )
            for d in np.flatnonzero(e.peak_scores > 0.05)
        ]

    def classes(self) -> list[Suspect]:
        e, result = self.e, []
        support = _step(self.overlap, 0.3, 0.6)  # [K,G]
        for g in range(len(self.rows)):
            if not self.known[g] or not len(e.boxes):
                continue
            rivals = e.scores * support[:, g, None]  # [K,C]
            own = rivals[:, self.labels[g]].max()
            # what another annotation of that class explains is no rival
            for i in range(len(self.rows)):
                if i != g:
                    nearer = self.overlap[:, i] > np.minimum(self.overlap[:, g], 0.5)
                    rivals[nearer, self.labels[i]] = 0
            if len(self.ignored):
                covered = overlaps(e.boxes, self.ignored) > np.minimum(self.overlap[:, g], 0.5)[:, None]
                for i, label in enumerate(self.ignored_labels):
                    rivals[covered[:, i], label] = 0
            rivals[:, self.labels[g]] = 0
            place, label = np.unravel_index(rivals.argmax(), rivals.shape)
            seen = rivals[place, label]
            dim = float((self.own[:, g] * self.overlap[:, g]).max(initial=0.0))
            numbers = (seen, own, self.overlap[place, g])
            result.append(
                self._suspect((CLASS, seen * (1 - own)), g, (e.boxes[place], int(label)), numbers, (self.crowd[g], dim))
            )
        return result

    def shifted(self) -> list[Suspect]:
        e, result = self.e, []
        for g in range(len(self.rows)):
            if not self.known[g] or not len(e.boxes):
                continue
            weight = self.own[:, g] * _step(self.overlap[:, g], 0.05, 0.3)
            for i in range(len(self.rows)):
                if i != g and self.labels[i] == self.labels[g]:
                    weight = np.where(self.overlap[:, i] > self.overlap[:, g], 0, weight)
            place = int(weight.argmax())
            if weight[place] <= 0:
                continue
            # the mean of what the best locations of this object say is steadier than the best alone
            team = (overlaps(e.boxes, e.boxes[place][None])[:, 0] > 0.6) * weight**2
            box = (e.boxes * team[:, None]).sum(axis=0) / team.sum()
            spread = float(np.sqrt(((e.boxes - box) ** 2 * team[:, None]).sum(axis=0) / team.sum()).mean())
            overlap = float(overlaps(box[None], self.boxes[g][None])[0, 0])
            own = float(self.own[place, g])
            # what the network says for the annotated box as it is, and how the sides of both differ
            exact = float((self.own[:, g] * _step(self.overlap[:, g], 0.5, 1.0)).max(initial=0.0))
            extent = np.tile(np.maximum(self.boxes[g, 2:] - self.boxes[g, :2], 1), 2)
            sides = np.sort(np.abs(box - self.boxes[g]) / extent)[::-1]
            ratio = _log_area(self.boxes[g]) - _log_area(box)
            facts = (exact, *sides, ratio, self.crowd[g], spread)
            result.append(
                self._suspect((SHIFTED, own * (1 - overlap)), g, (box, self.labels[g]), (own, own, overlap), facts)
            )
        return result

    def spurious(self) -> list[Suspect]:
        e, result = self.e, []
        support = _step(self.overlap, 0.2, 0.5)
        for g in range(len(self.rows)):
            if not self.known[g]:
                continue
            any_class = float((e.scores.max(axis=1) * support[:, g]).max(initial=0.0))
            own = float((self.own[:, g] * support[:, g]).max(initial=0.0))
            best = float(self.overlap[:, g].max(initial=0.0))
            seen = max(own, 0.7 * any_class)
            loose = float((self.own[:, g] * self.overlap[:, g]).max(initial=0.0))
            numbers = (any_class, own, best)
            result.append(
                self._suspect((SPURIOUS, 1 - seen), g, (self.boxes[g], self.labels[g]), numbers, (self.crowd[g], loose))
            )
        return result

    def duplicates(self) -> list[Suspect]:
        e, result = self.e, []
        pairs = overlaps(self.boxes, self.boxes)
        for i, j in zip(*np.nonzero(np.triu(pairs, 1) > 0.4), strict=True):
            same = self.labels[i] == self.labels[j]
            if not same and pairs[i, j] < 0.8:
                continue
            # two objects: a peak each, nearer to the one than to the other
            near = overlaps(e.peaks, self.boxes[[i, j]]) if len(e.peaks) else np.zeros((0, 2))
            fits = near * e.peak_scores[:, None] * (e.peak_labels[:, None] == self.labels[[i, j]][None])
            fits = np.where(near > 0.5, fits, 0)
            best = 0.0
            for a in range(min(len(fits), 40)):
                for b in range(min(len(fits), 40)):
                    if a != b:
                        best = max(best, min(fits[a, 0], fits[b, 1]))
            poorer = i if _fit(fits, 0) < _fit(fits, 1) else j
            kept = j if poorer == i else i
            numbers = (best, _fit(fits, 0 if poorer == i else 1), pairs[i, j])
            one = self._suspect(
                (DUPLICATE, pairs[i, j] * (1 - best)), int(poorer), (self.boxes[kept], self.labels[kept]), numbers
            )
            result.append(_with_other(one, int(self.rows[kept])))
        return result


def _fit(fits: np.ndarray, column: int) -> float:
    return float(fits[:, column].max(initial=0.0))


def _with_other(suspect: Suspect, other: int) -> Suspect:
    return replace(suspect, other=other)


def _shape(box: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float]:
    """(log of the side in pixels, log of width to height, whether it touches the edge of the image)."""
    width, height = np.maximum(box[2:] - box[:2], 1)
    at_edge = box[0] < 2 or box[1] < 2 or box[2] > size[1] - 2 or box[3] > size[0] - 2
    return 0.5 * float(np.log(width * height)), float(np.log(width / height)), float(at_edge)


def _log_area(box: np.ndarray) -> float:
    return float(np.log(np.maximum(box[2:] - box[:2], 1)).sum())


def _step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, a straight line between."""
    return np.clip((values - low) / (high - low), 0, 1)
