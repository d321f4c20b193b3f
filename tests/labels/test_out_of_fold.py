"""Who judges an image has not learned from it."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from judging import dataset, record
from PIL import Image
from tiny import fcos, make_shapes

from fcos.errors import DataError
from fcos.labels import folding
from fcos.labels.checking import check
from fcos.labels.folding import folds_of
from fcos.types import Classes


@pytest.fixture
def pictures(tmp_path):
    """40 images of noise; the first ten have a copy saved again as JPEG."""
    rng = np.random.default_rng(0)
    records = []
    for k in range(40):
        pixels = np.kron(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        for name in [f"{k}.png", *([f"copy of {k}.jpg"] if k < 10 else [])]:
            Image.fromarray(pixels).save(tmp_path / name)
            one = record(len(records) + 1, [[5, 5, 30, 30]], [0])
            records.append(replace(one, path=tmp_path / name, file_name=name, size=(64, 72)))
    return dataset(*records)


def test_every_image_once_and_near_duplicates_together(pictures):
    folds = folds_of(pictures, 3, seed=1, quiet=True)
    assert sorted(i for fold in folds for i in fold) == list(range(50))
    assert max(map(len, folds)) - min(map(len, folds)) <= 2
    place = {pictures.records[i].file_name: k for k, fold in enumerate(folds) for i in fold}
    assert all(place[f"{k}.png"] == place[f"copy of {k}.jpg"] for k in range(10))
    # neither the order of the records nor another run changes it; another seed does
    turned = pictures.subset(range(49, -1, -1))
    again = folds_of(turned, 3, seed=1, quiet=True)
    names = [{turned.records[i].file_name for i in fold} for fold in again]
    assert names == [{pictures.records[i].file_name for i in fold} for fold in folds]
    assert folds_of(pictures, 3, seed=2, quiet=True) != folds


def test_a_film_that_no_fold_can_hold_is_said(pictures, capsys):
    """Twelve frames of 15 images show the same; each frame has its own file."""
    film = [replace(pictures.records[0], id=900 + k, file_name=f"frame {k}.png") for k in range(12)]
    whole = replace(pictures, records=(*film, *pictures.records[20:23]))
    folds = folds_of(whole, 3)
    assert sorted(i for fold in folds for i in fold) == list(range(15))
    told = capsys.readouterr().err
    assert "12 images that show the same, such as frame 0.png, are too many to stay together" in told
    assert "AP" not in told
    folds_of(pictures, 3)
    assert "show the same" not in capsys.readouterr().err
    folds_of(whole, 3, quiet=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("folds", [1, 0, -2])
def test_less_than_two_folds_is_one_line(pictures, folds):
    with pytest.raises(DataError, match=f"^folds={folds}: give 2 or more"):
        check(pictures, folds=folds, quiet=True)


def test_too_few_images(pictures):
    with pytest.raises(DataError, match="2 images cannot be split into 3 folds"):
        folds_of(pictures.subset([0, 20]), 3, quiet=True)


@pytest.mark.parametrize(("names", "rate"), [(("car", "horse"), 1e-4), (("knight", "horse", "rook"), 1e-3)])
def test_classes_that_the_package_knows_are_learned_gently(pictures, monkeypatch, names, rate):
    """Else much of what it knows would be lost, as in a run with --minutes."""
    asked = []

    def train(data, *, settings, on_step, **_):
        asked.append(settings["train.lr"])
        for step in range(4):
            on_step(step, None)
        return SimpleNamespace(detector=None)

    monkeypatch.setattr(folding, "train", train)
    known = replace(pictures, classes=Classes(names, tuple(range(len(names)))))
    judges, _ = folding.out_of_fold(known, 2, 1.0, quiet=True)
    assert asked == [rate] * 3  # one run is to see how long a step takes
    assert sorted(i for judge in judges for i in judge.records) == list(range(50))


@pytest.mark.slow
def test_models_are_trained_out_of_fold_within_a_budget_that_is_said(capsys, tmp_path):
    data = make_shapes(tmp_path / "shapes", {"train": 14, "val": 4}, seed=3)
    before = set(os.listdir(tmp_path))
    code, said, told = fcos(capsys, "labels", "check", data, "--folds", "2", "--minutes", "0.1")
    assert code == 0
    assert "each trained on the other parts of the data for" in told
    assert "18 images" in said
    assert set(os.listdir(tmp_path)) == before
    shutil.rmtree(data)
