"""Images kept: where, and without a word on stdout."""

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fcos.config import DataConfig
from fcos.data.dataset import Dataset
from fcos.data.loading import cache
from fcos.data.loading.cache import Reader, kept_bytes, room
from fcos.data.records import Record
from fcos.errors import FcosError, ImageWarning
from fcos.system import progress
from fcos.system.cgroups import UNKNOWN
from fcos.types import Classes


@pytest.fixture
def dataset(tmp_path):
    records = []
    for number in (1, 2):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((40, 60, 3), number, np.uint8)).save(path)
        none = np.zeros(0, np.float32)
        records.append(
            Record(number, path, (40, 60), none.reshape(0, 4), none.astype(np.int64), none.astype(bool), none)
        )
    return Dataset(tuple(records), Classes(("a",)), "coco", "train", tmp_path)


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"FCOS_CACHE": "~/mine"}, "mine"),
        ("linux", {}, ".cache/fcos"),
        ("darwin", {}, "Library/Caches/fcos"),
        ("win32", {}, "AppData/Local/fcos"),
    ],
)
def test_images_are_kept_in_the_cache_folder(platform, variables, folder, dataset, tmp_path, monkeypatch):
    home = tmp_path / "home"
    for name in ("FCOS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    data = DataConfig(cache="disk", size=32, max_size=64)
    first = Reader(dataset, data).read(0)
    kept = list((home / folder).rglob("*.npy"))
    assert len(kept) == 1
    np.save(kept[0], np.full_like(first, 77))  # only who reads it there sees this
    assert (Reader(dataset, data).read(0) == 77).all()


def test_no_room_where_the_memory_is_not_known(monkeypatch):
    monkeypatch.setattr(cache, "free_memory", lambda: 5000)
    monkeypatch.setattr("torch.multiprocessing.get_start_method", lambda: "fork")
    assert room() == 5000
    monkeypatch.setattr("torch.multiprocessing.get_start_method", lambda: "forkserver")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3000))
    assert room() == 3000
    monkeypatch.setattr(cache, "free_memory", lambda: UNKNOWN)
    assert room() == 0


def test_filling_memory_leaves_stdout_alone(dataset, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    reader = Reader(dataset, DataConfig(cache="ram", size=32, max_size=64))
    assert [int(reader.read(i).max()) for i in (0, 1)] == [1, 2]
    assert reader.memory.numel() == kept_bytes(dataset, reader.data) == 2 * 3 * 32 * 48
    out, err = capsys.readouterr()
    assert out == ""
    assert "caching 2/2" in err
    Reader(dataset, DataConfig(cache="ram", size=32, max_size=64), quiet=True)
    assert capsys.readouterr() == ("", "")


def test_a_disk_that_is_full_or_cannot_be_written_ends_no_training(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    data = DataConfig(cache="disk", size=32, max_size=64)
    expected = Reader(dataset, data).read(0)

    def full(path, content):
        raise FcosError(f"cannot write {path}: the disk is full")

    monkeypatch.setattr(cache, "write_whole", full)
    reader = Reader(dataset, data)
    with pytest.warns(ImageWarning, match=r"the disk is full; going on without data.cache=disk"):
        assert (reader.read(1) == 2).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (reader.read(0) == 1).all()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "file"))
    with pytest.warns(ImageWarning, match="going on without"):
        reader = Reader(dataset, data)
    assert reader.read(0).shape[:2] == (40, 60)
    assert expected.shape[0] == 32
