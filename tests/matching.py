"""Detections compared as sets: no test may depend on the order of near-ties."""

import numpy as np

from fcos.export import check


def assert_same_detections(found, wanted, *, box=1e-2, score=1e-4):
    """Every detection of one side has its own partner on the other: the same label, corners within `box` pixels and
    a score within `score`. Both sides have boxes [D,4], scores [D] and labels [D], as attributes or items."""
    a, b = _columns(found), _columns(wanted)
    assert len(a[0]) == len(b[0]), f"{len(a[0])} detections, not {len(b[0])}"
    free = np.ones(len(b[0]), bool)
    for corners, confidence, label in zip(*a, strict=True):
        apart = np.abs(b[0] - corners).max(axis=1, initial=0.0)
        fits = free & (b[2] == label) & (apart <= box) & (np.abs(b[1] - confidence) <= score)
        assert fits.any(), f"no partner for label {label}, score {confidence:.6f}, box {corners.tolist()}"
        # the nearest of those that fit, so that one partner is not taken for another's
        free[int(np.where(fits, apart / box + np.abs(b[1] - confidence) / score, np.inf).argmin())] = False


def assert_close(found, expected, share=1e-3):
    """The same detections, boxes within a share of the longer side. Near-ties at the limits may differ."""
    report = check.measure([expected], [found])
    assert report.matched >= 0.95 * len(expected), report
    assert report.score < 1e-3, report
    assert report.share < share, report


def _columns(side):
    values = [side[k] if isinstance(side, dict) else getattr(side, k) for k in ("boxes", "scores", "labels")]
    boxes, scores, labels = (np.asarray(v.detach().cpu() if hasattr(v, "detach") else v, np.float64) for v in values)
    return boxes.reshape(-1, 4), scores, labels.astype(np.int64)
