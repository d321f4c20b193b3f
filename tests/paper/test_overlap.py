"""Overlaps of arrays are those of tensors, worked by hand where nothing is to be divided."""

import numpy as np
import torch

from fcos import boxes, overlap


def some(count, seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 50, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.5, 40, (count, 2))], axis=1).astype(dtype)


def test_every_pair_is_as_of_tensors():
    a, b = some(20, 1), some(30, 2)
    want = boxes.iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert (want > 0).any()
    np.testing.assert_allclose(overlap.iou(a[:, None], b[None]), want, rtol=1e-12)
    np.testing.assert_allclose(overlap.iou(a[0], b), want[0], rtol=1e-12)
    np.testing.assert_allclose(overlap.iou(a, b[:20]), want[:, :20].diagonal(), rtol=1e-12)
    assert overlap.iou(a.astype(np.float32), b[:20].astype(np.float32)).dtype == np.float32


def test_by_hand():
    a = np.array([[0.0, 0, 4, 2], [0, 0, 4, 2], [0, 0, 4, 2], [3, 3, 3, 3]])
    b = np.array([[2.0, 0, 6, 2], [4, 0, 6, 2], [1, 1, 2, 2], [3, 3, 3, 3]])
    np.testing.assert_array_equal(overlap.shared(a, b), [4, 0, 1, 0])
    np.testing.assert_array_equal(overlap.area(a), [8, 8, 8, 0])
    np.testing.assert_allclose(overlap.iou(a, b), [4 / 12, 0, 1 / 8, 0])


def test_none_with_some():
    assert overlap.iou(np.zeros((0, 1, 4)), some(3, 1)[None]).shape == (0, 3)
    assert overlap.iou(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)
