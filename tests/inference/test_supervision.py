"""`Detections.to_supervision()` with the real library."""

import numpy as np
import pytest
import torch

from fcos.detections import Detections

sv = pytest.importorskip("supervision", reason="pip install 'fcos-detector[supervision]'")

BOXES = [[10.0, 10, 50, 60], [12, 10, 50, 60], [60, 20, 90, 90]]


@pytest.fixture
def detections():
    return Detections(
        torch.tensor(BOXES),
        torch.tensor([0.9, 0.8, 0.4]),
        torch.tensor([1, 1, 0]),
        torch.arange(3),
        names=("cat", "dog"),
    )


def test_boxes_scores_classes_and_names_arrive(detections):
    found = detections.to_supervision()
    assert isinstance(found, sv.Detections)
    np.testing.assert_array_equal(found.xyxy, np.array(BOXES, np.float32))
    np.testing.assert_allclose(found.confidence, [0.9, 0.8, 0.4], rtol=1e-6)
    assert found.class_id.tolist() == [1, 1, 0]
    assert found["class_name"].tolist() == ["dog", "dog", "cat"]
    assert found[found.class_id == 0]["class_name"].tolist() == ["cat"]


def test_the_library_works_on_them(detections):
    found = detections.to_supervision()
    kept = found.with_nms(threshold=0.5)
    np.testing.assert_allclose(sorted(kept.confidence), [0.4, 0.9], rtol=1e-6)
    scene = np.zeros((100, 100, 3), np.uint8)
    drawn = sv.BoxAnnotator().annotate(scene.copy(), found)
    drawn = sv.LabelAnnotator().annotate(drawn, found)
    assert drawn[10, 30].any()
    assert not drawn[75, 20].any()


def test_nothing_found(detections):
    empty = Detections.empty().to_supervision()
    assert len(empty) == 0
    assert empty.is_empty()
    both = sv.Detections.merge([empty, detections.to_supervision()])
    assert len(both) == 3
    assert both["class_name"].tolist() == ["dog", "dog", "cat"]
