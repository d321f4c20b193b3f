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

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack

import numpy as np

from ..data.records import Record
from ..overlap import pairwise_iou
from .evidence import Evidence, inside
from .inject import CLASS, DUPLICATE, MISSING, SHIFTED, SPURIOUS

_FAINT = 0.1  # score of a peak from which it may be a missing box


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


class Pile:
    """Suspects of one kind, each with the number of its record, as rows of numbers: every image has many weak ones, all
    are kept to the end, and an object for each takes several times the memory."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._numbers = array("d")
        self._wide = 1

    def append(self, index: int, suspect: Suspect) -> None:
        s = suspect
        row = (index, s.score, s.row, s.other, *s.box, s.label, s.seen, s.own, s.overlap, s.given, *s.facts)
        self._wide = len(row)
        self._numbers.extend(row)

    def __len__(self) -> int:
        return len(self._numbers) // self._wide

    def __getitem__(self, number: int) -> tuple[int, Suspect]:
        row = self._numbers[number * self._wide : (number + 1) * self._wide]
        index, score, at, other, x1, y1, x2, y2, label, seen, own, overlap, given, *facts = row
        says = (int(at), int(other), (x1, y1, x2, y2), int(label), seen, own, overlap, int(given), tuple(facts))
        return int(index), Suspect(self.kind, score, *says)

    def __iter__(self) -> Iterator[tuple[int, Suspect]]:
        return map(self.__getitem__, range(len(self)))


class _Says(TypedDict):
    """What the model says of a suspect, under the names that `Suspect` has."""

    box: np.ndarray
    label: int
    seen: float
    own: float
    overlap: float


@dataclass(frozen=True)
class Sought:
    """What of an image is asked for: `rows` [G] bool of its annotations, and peaks within an IoU of 0.5 of one of
    `boxes` [L,4], of the class that stands in `labels` [L]."""

    rows: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def suspects(evidence: Evidence, record: Record, sought: Sought | None = None) -> list[Suspect]:
    """Every annotation in every way that makes sense for it, and every peak that may be a missing box; of these only
    what is `sought`."""
    scene = _Scene(evidence, record, sought)
    return [*scene.missing(), *scene.classes(), *scene.shifted(), *scene.spurious(), *scene.duplicates()]


class _Scene:
    """An image's annotations against its evidence. K locations, G annotations that are not ignored, D peaks."""

    def __init__(self, evidence: Evidence, record: Record, sought: Sought | None) -> None:
        self.e = evidence
        self.rows = np.flatnonzero(~record.ignore)
        self.numbers = range(len(self.rows)) if sought is None else np.flatnonzero(sought.rows[self.rows]).tolist()
        peaks = evidence.peak_scores > _FAINT
        if sought is not None:
            near = pairwise_iou(evidence.peaks, sought.boxes) * (evidence.peak_labels[:, None] == sought.labels[None])
            peaks &= near.max(axis=1, initial=0.0) >= 0.5
        self.peaks = np.flatnonzero(peaks)
        self.boxes, self.labels = record.boxes[self.rows], record.labels[self.rows]
        self.ignored = record.boxes[record.ignore]
        self.ignored_labels = record.labels[record.ignore]
        self.overlap = pairwise_iou(evidence.boxes, self.boxes)  # [K,G]
        own = evidence.scores[:, self.labels]  # [K,G]
        self.own = own
        self.known = evidence.known[self.labels]
        beside = pairwise_iou(self.boxes, self.boxes) * (1 - np.eye(len(self.rows)))
        self.crowd = beside.max(axis=1, initial=0.0)
        self.size = record.size

    def _suspect(self, kind: str, score: float, at: int, facts: Sequence[float] = (), **says: Unpack[_Says]) -> Suspect:
        """A suspect of one kind. `at`: the number of its annotation, -1 for none; `facts`: what else may tell."""
        x1, y1, x2, y2 = (float(v) for v in says["box"])
        shape = _shape(says["box"] if at < 0 else self.boxes[at], self.size)
        return Suspect(
            kind,
            float(score),
            row=int(self.rows[at]) if at >= 0 else -1,
            other=-1,
            box=(x1, y1, x2, y2),
            label=int(says["label"]),
            seen=float(says["seen"]),
            own=float(says["own"]),
            overlap=float(says["overlap"]),
            given=int(self.labels[at]) if at >= 0 else -1,
            facts=tuple(float(v) for v in (*shape, *facts)),
        )

    def missing(self) -> list[Suspect]:
        e, mine = self.e, self.peaks
        if not len(mine):
            return []
        boxes, labels, scores = e.peaks[mine], e.peak_labels[mine], e.peak_scores[mine]
        explained, nearest, parts = self._explained(boxes, labels)
        second, rival = self._beside(boxes, labels, scores)
        value = scores * (1 - explained) * (1 - second)
        agree = np.log1p(e.votes[mine])
        return [
            self._suspect(
                MISSING,
                value[d],
                -1,
                (*parts[d], second[d], agree[d], rival[d], explained[d]),
                box=boxes[d],
                label=labels[d],
                seen=scores[d],
                own=0.0,
                overlap=nearest[d],
            )
            for d in range(len(mine))
        ]

    def _explained(self, peaks: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far any annotation explains each peak [D] (boxes [D,4], labels [D]); the IoU with the nearest [D]; and
        [D,4]: the IoU and the share of the peak inside one of its class, that inside any, and of any inside it."""
        boxes = np.concatenate([self.boxes, self.ignored])
        if not len(boxes):
            return np.zeros(len(peaks)), np.zeros(len(peaks)), np.zeros((len(peaks), 4))
        iou, part = pairwise_iou(peaks, boxes), inside(peaks, boxes)
        whole = inside(boxes, peaks).T
        same = np.concatenate([self.labels, self.ignored_labels])[None] == labels[:, None]
        parts = [(iou * same).max(axis=1), (part * same).max(axis=1), part.max(axis=1), whole.max(axis=1)]
        # the same class near by: a poorer box of that object, a part of it, or the group that it is in
        own = np.maximum.reduce([_step(iou, 0.1, 0.45), _step(part, 0.5, 0.9), 0.7 * _step(whole, 0.6, 0.95)])
        other = _step(iou, 0.35, 0.65)  # another class in that place: `class` asks for it
        explained = np.where(same, own, other).max(axis=1)
        if len(self.ignored):
            crowd = _step(inside(peaks, self.ignored), 0.4, 0.7).max(axis=1)
            explained = np.maximum(explained, crowd)
        return explained, iou.max(axis=1), np.stack(parts, 1)

    def _beside(self, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far each peak [D] is part of a better one of its class or place; and the score of the best peak of
        another class in its place."""
        e = self.e
        beside = pairwise_iou(boxes, e.peaks)
        higher = e.peak_scores[None] > scores[:, None]
        alike = e.peak_labels[None] == labels[:, None]
        within = inside(boxes, e.peaks) * (higher & alike)
        second = np.maximum(_step(beside * higher, 0.3, 0.6), _step(within, 0.6, 0.95)).max(axis=1, initial=0.0)
        rival = ((beside > 0.5) * ~alike * e.peak_scores[None]).max(axis=1, initial=0.0)
        return second, rival

    def classes(self) -> list[Suspect]:
        e, result = self.e, []
        support = _step(self.overlap, 0.3, 0.6)  # [K,G]
        for g in self.numbers:
            if not self.known[g] or not len(e.boxes):
                continue
            near = np.flatnonzero(support[:, g])  # the N locations that may be rivals
            rivals = e.scores[near] * support[near, g, None]  # [N,C]
            own = rivals[:, self.labels[g]].max(initial=0.0)
            # what another annotation of that class explains is no rival
            least = np.minimum(self.overlap[near, g], 0.5)[:, None]
            nearer = self.overlap[near] > least
            covered = pairwise_iou(e.boxes[near], self.ignored) > least
            for hidden, labels in ((nearer, self.labels), (covered, self.ignored_labels)):
                places, by = np.nonzero(hidden)
                rivals[places, labels[by]] = 0
            rivals[:, self.labels[g]] = 0
            seen = rivals.max(initial=0.0)
            row, label = np.unravel_index(rivals.argmax(), rivals.shape) if seen > 0 else (0, 0)
            place = near[row] if seen > 0 else 0
            dim = float((self.own[:, g] * self.overlap[:, g]).max(initial=0.0))
            result.append(
                self._suspect(
                    CLASS,
                    seen * (1 - own),
                    g,
                    (self.crowd[g], dim),
                    box=e.boxes[place],
                    label=int(label),
                    seen=seen,
                    own=own,
                    overlap=self.overlap[place, g],
                )
            )
        return result

    def shifted(self) -> list[Suspect]:
        e, result = self.e, []
        for g in self.numbers:
            if not self.known[g] or not len(e.boxes):
                continue
            weight = self.own[:, g] * _step(self.overlap[:, g], 0.05, 0.3)
            near = np.flatnonzero(weight)
            others = np.flatnonzero(self.labels == self.labels[g])
            weight[near[(self.overlap[np.ix_(near, others)] > self.overlap[near, g, None]).any(axis=1)]] = 0
            place = int(weight.argmax())
            if weight[place] <= 0:
                continue
            # the mean of what the best locations of this object say is steadier than the best alone
            near = pairwise_iou(e.boxes, e.boxes[place][None])[:, 0]
            team = _Team(e.boxes, (near > 0.6) * weight**2, near)
            overlap = float(pairwise_iou(team.box[None], self.boxes[g][None])[0, 0])
            own = float(self.own[place, g])
            facts = (*self._differ(g, team), *self._others(g, own, weight * (near < 0.5)))
            result.append(
                self._suspect(
                    SHIFTED,
                    own * (1 - overlap),
                    g,
                    facts,
                    box=team.box,
                    label=self.labels[g],
                    seen=own,
                    own=own,
                    overlap=overlap,
                )
            )
        return result

    def _differ(self, g: int, team: _Team) -> tuple[float, ...]:
        """How the sides of an annotation differ from what a team of locations says, and how far these agree."""
        given, box = self.boxes[g], team.box
        change = (box - given) / np.tile(np.maximum(given[2:] - given[:2], 1), 2)
        extent = np.tile(np.maximum(box[2:] - box[:2], 1), 2)
        # in shares of their own disagreement: a side that all locations see alike is sure
        sure = np.sort(np.abs(box - given) / (team.spread + 0.03 * extent))[::-1]
        sides = np.sort(np.abs(change))[::-1]
        ratio = _log_area(given) - _log_area(box)
        votes = np.log1p(self.own[team.weight > 0, g].sum())
        agreement = (team.spread.mean(), (team.spread / extent).mean(), team.tight, votes)
        return (*sides, ratio, *sure, *change, *agreement)

    def _others(self, g: int, own: float, apart: np.ndarray) -> tuple[float, ...]:
        """What else is seen at an annotation: its box as it is, by any location and by those almost as sure as the
        best; other classes; a second object of its class inside, and the best location of one near by (`apart` [K])."""
        e, overlap, mine = self.e, self.overlap[:, g], self.own[:, g]
        exact = (mine * _step(overlap, 0.5, 1.0)).max(initial=0.0)
        strong = (overlap * (mine > 0.5 * own)).max(initial=0.0)
        rival = np.where(e.scores.argmax(axis=1) != self.labels[g], e.scores.max(axis=1), 0)
        within = (inside(e.peaks, self.boxes[g][None])[:, 0] > 0.6) & (e.peak_labels == self.labels[g])
        second = np.sort(e.peak_scores * within)[-2:-1].sum()
        other = (rival * overlap).max(initial=0.0)
        return (exact, strong, self.crowd[g], other, second, apart.max(initial=0.0))

    def spurious(self) -> list[Suspect]:
        e, result = self.e, []
        support = _step(self.overlap, 0.2, 0.5)
        for g in self.numbers:
            if not self.known[g]:
                continue
            any_class = float((e.scores.max(axis=1) * support[:, g]).max(initial=0.0))
            own = float((self.own[:, g] * support[:, g]).max(initial=0.0))
            best = float(self.overlap[:, g].max(initial=0.0))
            seen = max(own, 0.7 * any_class)
            loose = float((self.own[:, g] * self.overlap[:, g]).max(initial=0.0))
            result.append(
                self._suspect(
                    SPURIOUS,
                    1 - seen,
                    g,
                    (self.crowd[g], loose),
                    box=self.boxes[g],
                    label=self.labels[g],
                    seen=any_class,
                    own=own,
                    overlap=best,
                )
            )
        return result

    def duplicates(self) -> list[Suspect]:
        e, result = self.e, []
        pairs = pairwise_iou(self.boxes, self.boxes)
        for i, j in zip(*np.nonzero(np.triu(pairs, 1) > 0.4), strict=True):
            if i not in self.numbers and j not in self.numbers:
                continue
            if not (self.known[i] and self.known[j]):
                continue
            same = self.labels[i] == self.labels[j]
            if not same and pairs[i, j] < 0.8:
                continue
            # two objects: a peak each, nearer to the one than to the other
            near = pairwise_iou(e.peaks, self.boxes[[i, j]]) if len(e.peaks) else np.zeros((0, 2))
            fits = near * e.peak_scores[:, None] * (e.peak_labels[:, None] == self.labels[[i, j]][None])
            fits = np.where(near > 0.5, fits, 0)
            best = 0.0
            for a in range(min(len(fits), 40)):
                for b in range(min(len(fits), 40)):
                    if a != b:
                        best = max(best, min(fits[a, 0], fits[b, 1]))
            poorer = i if _fit(fits, 0) < _fit(fits, 1) else j
            kept = j if poorer == i else i
            one = self._suspect(
                DUPLICATE,
                pairs[i, j] * (1 - best),
                int(poorer),
                box=self.boxes[kept],
                label=self.labels[kept],
                seen=best,
                own=_fit(fits, 0 if poorer == i else 1),
                overlap=pairs[i, j],
            )
            result.append(replace(one, other=int(self.rows[kept])))
        return result


class _Team:
    """Locations that speak of one object: their mean box [4], by `weight` [K], and the spread [4] of each side; tight:
    the mean overlap `near` [K] with the best of them."""

    def __init__(self, boxes: np.ndarray, weight: np.ndarray, near: np.ndarray) -> None:
        total = weight.sum()
        self.weight = weight
        self.box: np.ndarray = (boxes * weight[:, None]).sum(axis=0) / total
        self.spread: np.ndarray = np.sqrt(((boxes - self.box) ** 2 * weight[:, None]).sum(axis=0) / total)
        self.tight = float((near * weight).sum() / total)


def _fit(fits: np.ndarray, column: int) -> float:
    return float(fits[:, column].max(initial=0.0))


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
