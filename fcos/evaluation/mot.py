"""How well a video was tracked: HOTA (arXiv 2009.07736), IDF1 (1609.01775), MOTA (CLEAR MOT), and MOTChallenge files.

Truth and result are lists of frames; a frame is (ids [N], boxes [N,4] xyxy). All numbers lie in 0..1 but MOTA, which
falls below 0 where there are more mistakes than objects. NaN where there is nothing to count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, require
from ..overlap import iou
from ..system.terminal import json_ready, percent, plural, table

Floats = NDArray[np.float64]
FrameRows = tuple[NDArray[np.int64], Floats]
ALPHAS = np.arange(0.05, 0.99, 0.05)  # overlaps at which HOTA is taken
_IOU = 0.5  # of IDF1, MOTA and distractors


@dataclass(frozen=True)
class TrackMetrics:
    """hota: the geometric mean of deta (finding) and assa (keeping ids), over 19 overlaps. idf1: share of what one id
    for each object covers. mota: 1 - (misses + false ones + changes of id) / objects. switches: changes of id."""

    hota: float
    deta: float
    assa: float
    idf1: float
    mota: float
    switches: int
    misses: int
    alarms: int
    objects: int
    frames: int

    def to_dict(self) -> dict[str, Any]:
        result: dict[str, Any] = json_ready(asdict(self))
        return result

    def text(self) -> str:
        """A table for a terminal, in %."""
        shares = [percent(v, 1) for v in (self.hota, self.deta, self.assa, self.idf1, self.mota)]
        counts = [f"{v:,}" for v in (self.switches, self.misses, self.alarms, self.objects, self.frames)]
        head = ("HOTA", "DetA", "AssA", "IDF1", "MOTA", "id changes", "missed", "false", "objects", "frames")
        return table(head, [[*shares, *counts]], left=0)


def track_metrics(truth: Sequence[FrameRows], result: Sequence[FrameRows]) -> TrackMetrics:
    """HOTA, IDF1 and MOTA of `result` against `truth`, frame by frame."""
    if len(truth) != len(result):
        raise DataError(f"the truth has {plural(len(truth), 'frame')}, the result {len(result)}")
    real, made = _numbered(truth), _numbered(result)
    overlaps = [iou(a[1].reshape(-1, 1, 4), b[1].reshape(1, -1, 4)) for a, b in zip(truth, result, strict=True)]
    hota, deta, assa = _hota(real, made, overlaps)
    idf1 = _idf1(real, made, overlaps)
    switches, misses, alarms = _clear(real, made, overlaps)
    objects = sum(len(ids) for ids in real)
    mota = 1 - (misses + alarms + switches) / objects if objects else float("nan")
    return TrackMetrics(hota, deta, assa, idf1, mota, switches, misses, alarms, objects, len(truth))


def _numbered(frames: Sequence[FrameRows]) -> list[NDArray[np.int64]]:
    """The ids of each frame, numbered anew: 0, 1, ... in the order in which they first occur."""
    known: dict[int, int] = {}
    return [np.array([known.setdefault(int(i), len(known)) for i in ids], np.int64) for ids, _ in frames]


def _assign(worth: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    optimize = require("scipy.optimize", "track")
    rows, columns = optimize.linear_sum_assignment(-worth)
    return rows, columns


def _counts(frames: Sequence[NDArray[np.int64]]) -> Floats:
    together = np.concatenate(frames) if frames else np.zeros(0, np.int64)
    return np.bincount(together).astype(np.float64) if len(together) else np.zeros(0)


def _hota(
    real: Sequence[NDArray[np.int64]], made: Sequence[NDArray[np.int64]], overlaps: Sequence[Floats]
) -> tuple[float, float, float]:
    """Means over ALPHAS of HOTA, DetA and AssA."""
    objects, tracks = _counts(real), _counts(made)
    if not len(objects) and not len(tracks):
        return float("nan"), float("nan"), float("nan")
    # how well two ids fit over the whole video; decides the pairs of each frame
    fit = np.zeros((len(objects), len(tracks)))
    for ids, theirs, shares in zip(real, made, overlaps, strict=True):
        both = shares.sum(axis=0)[None] + shares.sum(axis=1)[:, None] - shares
        fit[ids[:, None], theirs[None]] += np.where(both > 1e-12, shares / np.maximum(both, 1e-12), 0)
    fit /= np.maximum(objects[:, None] + tracks[None] - fit, 1e-12)
    matched = np.zeros((len(ALPHAS), len(objects), len(tracks)))
    for ids, theirs, shares in zip(real, made, overlaps, strict=True):
        if not shares.size:
            continue
        rows, columns = _assign(fit[ids[:, None], theirs[None]] * shares)
        for k, alpha in enumerate(ALPHAS):
            good = shares[rows, columns] >= alpha - 1e-12
            matched[k, ids[rows[good]], theirs[columns[good]]] += 1
    hits = matched.sum(axis=(1, 2))
    deta = hits / np.maximum(objects.sum() + tracks.sum() - hits, 1)
    shared = matched / np.maximum(objects[None, :, None] + tracks[None, None] - matched, 1)
    assa = (matched * shared).sum(axis=(1, 2)) / np.maximum(hits, 1)
    return float(np.sqrt(deta * assa).mean()), float(deta.mean()), float(assa.mean())


def _idf1(real: Sequence[NDArray[np.int64]], made: Sequence[NDArray[np.int64]], overlaps: Sequence[Floats]) -> float:
    """2 hits / (objects + detections), with the one-to-one pairing of ids that gives most hits."""
    objects, tracks = _counts(real), _counts(made)
    if not len(objects) and not len(tracks):
        return float("nan")
    together = np.zeros((len(objects), len(tracks)))
    for ids, theirs, shares in zip(real, made, overlaps, strict=True):
        rows, columns = np.nonzero(shares >= _IOU)
        np.add.at(together, (ids[rows], theirs[columns]), 1)
    hits = together[_assign(together)].sum() if together.size else 0.0
    return float(2 * hits / (objects.sum() + tracks.sum()))


def _clear(
    real: Sequence[NDArray[np.int64]], made: Sequence[NDArray[np.int64]], overlaps: Sequence[Floats]
) -> tuple[int, int, int]:
    """(changes of id, misses, false detections) of CLEAR MOT. Pairs stay if they still overlap: those of the last frame
    that had objects and detections."""
    before: dict[int, int] = {}  # object -> track, of its last sight
    now: dict[int, int] = {}
    switches = misses = alarms = 0
    for ids, theirs, shares in zip(real, made, overlaps, strict=True):
        if not shares.size:
            misses, alarms = misses + len(ids), alarms + len(theirs)
            continue
        stay = np.array([[now.get(int(i), -1) == t for t in theirs] for i in ids], bool).reshape(shares.shape)
        worth = np.where(shares >= _IOU, shares + 1000.0 * stay, 0.0)
        rows, columns = _assign(worth)
        good = worth[rows, columns] > 0
        pairs = {int(ids[r]): int(theirs[c]) for r, c in zip(rows[good], columns[good], strict=True)}
        switches += sum(i in before and before[i] != t for i, t in pairs.items())
        misses += len(ids) - len(pairs)
        alarms += len(theirs) - len(pairs)
        before |= pairs
        now = pairs
    return switches, misses, alarms


# --------------------------------------------------------------------------- MOTChallenge files


_FRAMES = 1_000_000  # eleven hours
_LARGE = 1e12  # pixels, and numbers of objects
_DISTRACTORS = (2, 7, 8, 12)  # MOT16 to MOT20: person on a vehicle, static person, distractor, reflection
_NONE: FrameRows = (np.zeros(0, np.int64), np.zeros((0, 4)))


def mot_lines(frames: Sequence[tuple[NDArray[np.int64], Floats, Floats]], first: int = 1) -> str:
    """(ids, boxes xyxy, scores) of each frame as MOTChallenge lines: frame from `first`, id, left, top, width, height,
    score, and -1 three times. The first pixel is 1 there, so left and top are x1 + 1 and y1 + 1."""
    lines = []
    for number, (ids, boxes, scores) in enumerate(frames, first):
        for i, (x1, y1, x2, y2), score in zip(ids.tolist(), boxes.tolist(), scores.tolist(), strict=True):
            lines.append(f"{number},{i},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1\n")
    return "".join(lines)


def judge_mot(truth: str | Path, result: str | Path) -> TrackMetrics:
    """HOTA, IDF1 and MOTA of one MOTChallenge file against another. As the challenge has it, boxes of the result that
    fit a distractor of the truth best count as nothing."""
    rows = list(_rows(truth))
    frames = read_mot(result, max((row.frame for row in rows), default=0))
    there: dict[int, list[_Row]] = {row.frame: [] for row in rows if row.distractor}
    for row in rows:
        if row.frame in there:
            there[row.frame].append(row)
    for frame, of in there.items():
        frames[frame - 1] = _beside(frames[frame - 1], of)
    return track_metrics(_collect(truth, [row for row in rows if row.flag != 0], len(frames)), frames)


def read_mot(path: str | Path, frames: int = 0, *, truth: bool = False) -> list[FrameRows]:
    """The frames of a MOTChallenge file, at least `frames` of them. In ground truth (`truth`) rows with 0 in the
    seventh column are left out, as they are not judged; in a result that is a score. DataError names the line that
    cannot be read, and an id that a frame has twice."""
    return _collect(path, [row for row in _rows(path) if not truth or row.flag != 0], frames)


class _Row(NamedTuple):
    """What a line of a MOTChallenge file says. flag: the seventh column, 0 in ground truth that is not judged."""

    line: int
    frame: int
    identity: int
    box: list[float]
    flag: float
    distractor: bool


def _rows(path: str | Path) -> Iterator[_Row]:
    """Read the lines of a MOTChallenge file; DataError names the first that is none."""
    from ..system.readers import read_lines

    for number, line in enumerate(read_lines(path, kind=DataError), 1):
        if not line.strip():
            continue
        try:
            values = [float(v) for v in line.replace(" ", ",").split(",") if v]
            frame, identity, x, y, width, height = values[:6]
            if not 1 <= frame <= _FRAMES or not all(abs(v) < _LARGE for v in values[:6]):  # NaN is not below it either
                raise ValueError
        except (ValueError, OverflowError):
            raise DataError(
                f"{path}: line {number} is no MOTChallenge row: {line[:60]!r}; "
                "write frame,id,left,top,width,height,score,-1,-1,-1"
            ) from None
        if not (frame.is_integer() and identity.is_integer()):
            raise DataError(f"{path}: line {number}: frame {frame:g} and id {identity:g} have to be whole numbers")
        if width < 0 or height < 0:
            raise DataError(f"{path}: line {number}: width {width:g} and height {height:g} must not be below 0")
        flag, kind = [*values[6:8], 1.0, 1.0][:2]
        box = [x, y, x + width, y + height]
        yield _Row(number, int(frame), int(identity), box, flag, flag == 0 and kind in _DISTRACTORS)


def _collect(path: str | Path, rows: Iterable[_Row], frames: int) -> list[FrameRows]:
    """At least `frames` frames; DataError for an id that one has twice."""
    found: dict[int, dict[int, list[float]]] = {}
    for row in rows:
        boxes = found.setdefault(row.frame, {})
        if row.identity in boxes:
            raise DataError(
                f"{path}: line {row.line}: frame {row.frame} has the id {row.identity} twice; "
                "give each object of a frame an id of its own"
            )
        boxes[row.identity] = row.box
    last = max((*found, frames), default=0)
    made = {k: (np.array(list(of), np.int64), np.array(list(of.values()), np.float64)) for k, of in found.items()}
    return [made.get(k, _NONE) for k in range(1, last + 1)]


def _beside(result: FrameRows, there: Sequence[_Row]) -> FrameRows:
    """A frame of a result without the boxes that fit a distractor best, of all that is `there`."""
    ids, boxes = result
    shares = iou(np.array([row.box for row in there])[:, None], boxes[None])
    rows, columns = _assign(np.where(shares >= _IOU, shares, 0.0))
    distractor = np.array([row.distractor for row in there], bool)
    keep = np.ones(len(ids), bool)
    keep[columns[distractor[rows] & (shares[rows, columns] >= _IOU)]] = False
    return ids[keep], boxes[keep]
