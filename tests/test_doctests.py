"""The examples of the public names run as they stand, in a folder with a photo and a small data set."""

import doctest
import importlib
import shutil

import numpy as np
import pytest
import torch

import fcos
from fcos.system.files import ASSETS

MODULES = [
    "config", "data.dataset", "data.open", "data.write", "data.tree", "detections", "errors", "evaluation.program",
    "analysis.explain", "inference.detector", "inference.load", "inference.writers", "presets", "training.program",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(ASSETS / "photos", folder / "my_data")
    shutil.copy(ASSETS / "photos" / "cat.jpg", folder / "photo.jpg")
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    module = importlib.import_module(f"fcos.{name}")
    given = {"fcos": fcos, "torch": torch, "np": np}
    found = [t for t in doctest.DocTestFinder().find(module, extraglobs=given) if t.examples]
    assert found, f"fcos.{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    told: list[str] = []
    for test in found:
        runner.run(test, out=told.append)
    assert runner.failures == 0, "".join(told)


def test_every_public_name_has_a_docstring():
    for name in set(fcos.__all__) - {"__version__"}:
        assert (getattr(fcos, name).__doc__ or "").strip(), name
