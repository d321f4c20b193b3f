"""Classes that the detector of a start knows under other names, by what it finds on their boxes."""

from dataclasses import replace

import pytest
from scripted import detector, world  # noqa: F401

from fcos.data.dataset import Dataset
from fcos.presets import preset
from fcos.training import class_matching
from fcos.training.class_matching import known_by_sight
from fcos.training.starting import Start
from fcos.types import Classes

# what the detector says of every image: a sure cat, a dog on the second box, nothing on the third
FOUND = [
    ((44, 36), (20, 20, 60, 60), 0, 0.9, 0.9),
    ((100, 100), (80, 80, 120, 120), 1, 0.8, 0.9),
]
TRUTH = [(20, 20, 60, 60, 0, 0), (80, 80, 120, 120, 1, 0), (10, 90, 40, 120, 2, 0)]


@pytest.fixture
def known(world, monkeypatch):  # noqa: F811
    """What is known of images with these boxes, under these names."""
    monkeypatch.setattr(class_matching, "load", lambda *_, **__: detector(FOUND))

    def ask(names, boxes=TRUTH, count=6, init=None):
        one = replace(world(*boxes), classes=Classes(names))
        data = Dataset(
            tuple(replace(one.records[0], id=i) for i in range(count)), one.classes, "coco", "train", one.root
        )
        return known_by_sight(preset("fcos-lite0"), data, init, "cpu")

    return ask


def test_classes_are_known_by_what_is_found_on_their_boxes(known):
    assert known(("Katze", "Hund", "Maus")) == {"Katze": "cat", "Hund": "dog"}
    assert known(("Katze", "Hund", "Maus"), count=4) == {}  # too few boxes to tell
    assert known(("Katze", "cow", "Maus")) == {"Katze": "cat"}  # the cow is known by its name already
    crowd = [(*box[:5], 1) for box in TRUTH]
    assert known(("Katze", "Hund", "Maus"), crowd) == {}


def test_one_class_of_the_detector_is_one_class_of_the_data(known):
    """Boxes of two classes that it finds as cats: which is which is yet to be learned."""
    both = [*TRUTH[:1], (22, 22, 60, 60, 2, 0)]
    assert known(("Katze", "Hund", "Kater"), both) == {"Katze": "cat"}


@pytest.mark.parametrize("init", ["none", "backbone"])
def test_a_start_without_a_detector_knows_nothing(known, init):
    assert known(("Katze", "Hund", "Maus"), init=init) == {}


def test_what_is_known_is_told():
    start = Start(None, "", {"Katze": "cat", "Hund": "dog"})
    assert start.lines() == ["it finds classes under other names: Katze as cat, Hund as dog"]
    assert Start(None, "").lines() == []
