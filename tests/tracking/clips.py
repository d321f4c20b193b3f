"""Clips made for tests: boxes that move, cross and hide each other, their detections, and the exact truth."""

import numpy as np
import torch

from fcos.detections import Detections

_TICKS = 120  # of the simulation in a second, so that every frame rate sees the same clip


def clip(seed, rate=30, count=8, seconds=6, size=(240, 320)):
    """(time, boxes [N,4], visible share [N]) of each frame."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(20, 50, (count, 2))
    place = rng.uniform(0, 1, (count, 2)) * (np.array(size[::-1]) - sides)
    speed = rng.normal(0, 50, (count, 2))
    depth = rng.permutation(count)
    frames = []
    for tick in range(seconds * _TICKS):
        place = place + speed / _TICKS
        for axis in (0, 1):
            low, high = place[:, axis] < 0, place[:, axis] + sides[:, axis] > size[1 - axis]
            speed[low, axis], speed[high, axis] = np.abs(speed[low, axis]), -np.abs(speed[high, axis])
        if tick % (_TICKS // rate) == 0:
            boxes = np.concatenate([place, place + sides], axis=1)
            frames.append((tick / _TICKS, boxes, _visible(boxes, depth)))
    return frames


def _visible(boxes, depth):
    """The share of each box that the one in front which hides most of it leaves."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    both = (np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - low).clip(min=0).prod(axis=2)
    hidden = both / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    return 1 - np.where(depth[None] > depth[:, None], hidden, 0).max(axis=1)


def truth_of(frames):
    """(ids, boxes) of each frame: what is visible by a quarter."""
    return [(np.arange(len(boxes))[seen >= 0.25], boxes[seen >= 0.25]) for _, boxes, seen in frames]


def detections_of(frames, seed):
    """(time, Detections) of each frame: jitter, misses, lower scores for what is half hidden, false ones."""
    rng = np.random.default_rng(seed + 100)
    found = []
    for time, boxes, seen in frames:
        rows, scores = [], []
        for box, share in zip(boxes, seen, strict=True):
            if share < 0.25 or rng.random() < 0.03:
                continue
            scores.append(float(np.clip(0.35 + 0.6 * share - abs(rng.normal(0, 0.08)), 0.05, 0.99)))
            rows.append(box + rng.normal(0, 1.5, 4))
        for _ in range(rng.poisson(0.1)):
            corner = rng.uniform(0, 200, 2)
            rows.append([*corner, *(corner + 30)])
            scores.append(float(rng.uniform(0.1, 0.6)))
        found.append((time, as_detections(rows, scores)))
    return found


def as_detections(rows, scores, labels=None):
    labels = torch.zeros(len(scores)) if labels is None else torch.tensor(labels)
    return Detections(
        torch.tensor(np.array(rows), dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        labels.long(),
        torch.zeros(len(scores)).long(),
    )


def tracked(tracker, found):
    """(ids, boxes) of each frame as a tracker gives them."""
    frames = []
    for time, detections in found:
        ids = tracker.update(detections, time)
        frames.append((ids[ids >= 0], detections.boxes.numpy()[ids >= 0].astype(float)))
    return frames
