"""Shards: images are read from their places in tar files, and a run on them is the run on the files."""

import io
import json
import os
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image
from tiny import fcos, make_shapes, tiny_config

from fcos.data.loading.loader import train_loader
from fcos.data.open import open_dataset, open_splits
from fcos.data.write import convert
from fcos.errors import DataError, FcosError
from fcos.system import tars
from fcos.system.readers import open_file, read_bytes


def tar_of(path, files, kind=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


LONG = "folder/" * 30 + "ü.txt"


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_are_where_tar_says(tmp_path, kind):
    rng = np.random.default_rng(0)
    files = {"a.txt": b"", "./b.txt": rng.bytes(700), LONG: rng.bytes(512), "a/c.txt": rng.bytes(5000)}
    tar = tar_of(tmp_path / "x.TAR", files, kind)
    for name, content in files.items():
        assert read_bytes(tar / name) == content
        with open_file(str(tar / name)) as file:
            assert file.read(10) == content[:10]
    assert list(tars.members(tar)) == [name.removeprefix("./") for name in files]
    assert tars.split(tar) is None
    assert tars.split(tar / "a/c.txt") == (tar, "a/c.txt")
    with pytest.raises(FcosError, match=r"x\.TAR/none: there is no such file in the tar file"):
        read_bytes(tar / "none")
    with pytest.raises(FcosError, match="over the limit of 0 MB"):
        read_bytes(tar / "a/c.txt", 10)
    with pytest.raises(FcosError, match="not a directory"):
        read_bytes(tar_of(tmp_path / "plain", {}) / "y.txt")
    tar_of(tar, {"a.txt": b"new"}, kind)  # another file of this name
    assert read_bytes(tar / "a.txt") == b"new"


def test_what_is_cut_or_spoiled_is_told(tmp_path):
    files = {f"{k}.txt": bytes([65 + k]) * 700 for k in range(3)}
    whole = tar_of(tmp_path / "x.tar", files).read_bytes()
    size = 3 * 1536
    for k, data in enumerate(
        (whole[:size], whole[: size - 900], whole[: size - 1200], b"x" * 9000, b"",
         whole[:1536] + b"\1" * 512 + whole[2048:])
    ):  # fmt: skip
        tar = tmp_path / f"{k}.tar"
        tar.write_bytes(data)
        with pytest.raises(DataError) as error:
            read_bytes(tar / "0.txt", kind=DataError)
        assert str(error.value).startswith(f"cannot read {tar}: it is no plain tar file, or damaged (")
        assert "\n" not in str(error.value)
    packed = tmp_path / "packed.tar"
    with tarfile.open(packed, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("0.txt"))
    with pytest.raises(DataError, match="no plain tar file"):
        read_bytes(packed / "0.txt", kind=DataError)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The same images as files, as shards and as Parquet."""
    folder = tmp_path_factory.mktemp("sets")
    files = make_shapes(folder / "files", {"train": 10, "val": 3})
    splits = open_splits(files)
    pytest.importorskip("pyarrow")
    convert(splits, folder / "shards", "webdataset")
    convert(splits, folder / "parquet", "parquet")
    return files, folder / "shards", folder / "parquet"


def test_batches_are_those_of_the_files(sets, tmp_path, monkeypatch):
    """Bit by bit, in the order that seed and step say, from any step on, also with processes and the disk's cache."""
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    for settings in ({"workers": 0}, {"workers": 1}, {"workers": 0, "cache": "disk"}):
        config = tiny_config(data={"color": 0.3, "mosaic": 0.5, "flip": 0.5, **settings}, train={"epochs": 2})
        files, *others = (open_dataset(place, "train") for place in sets)
        want = list(train_loader(files, config))
        assert len(want) > 3
        for other in others:
            for start in (0, 3):
                got = list(train_loader(other, config, start_step=start))
                assert len(got) == len(want) - start
                for ours, theirs in zip(got, want[start:], strict=True):
                    for a, b in zip(ours, theirs, strict=True):
                        assert a.images.equal(b.images)
                        assert a.ids == b.ids
                        for s, t in zip(a.targets, b.targets, strict=True):
                            assert s.boxes.equal(t.boxes)
                            assert s.labels.equal(t.labels)
                            assert s.ignore.equal(t.ignore)


def losses(folder):
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    columns = [k for k, name in enumerate(lines[0]) if name not in ("images_per_second", "data_wait")]
    return [[line[k] for k in columns] for line in lines]


@pytest.mark.slow
def test_a_run_on_shards_is_the_run_on_files_also_resumed(sets, capsys, tmp_path):
    settings = tmp_path / "tiny.yaml"
    changes = {"ema": 0.9, "epochs": 3, "schedule": "constant", "warmup": 0, "log_every": 1}
    settings.write_text(tiny_config(data={"color": 0.3, "workers": 1}, train=changes).dump())
    for name, place in zip(("files", "shards", "parquet"), sets, strict=True):
        words = ["train", place, "--config", settings, "--init", "none", "--device", "cpu", "--quiet"]
        first = ["--epochs", 1] if name != "files" else []
        assert fcos(capsys, *words, *first, "--out", tmp_path / name)[0] == 0
        if first:
            assert fcos(capsys, "train", "--resume", "--out", tmp_path / name, "--epochs", 3, "--quiet")[0] == 0
    assert losses(tmp_path / "files") == losses(tmp_path / "shards") == losses(tmp_path / "parquet")
    assert len(losses(tmp_path / "files")) > 6


def test_many_shards_and_a_damaged_one(sets, tmp_path, monkeypatch):
    from fcos.data.formats import parquet, webdataset

    monkeypatch.setattr(webdataset, "_IMAGES", 3)
    monkeypatch.setattr(parquet, "_ROWS", 3)
    splits = open_splits(sets[0])
    for name in ("webdataset", "parquet"):
        convert(splits, tmp_path / name, name)
        again = open_splits(tmp_path / name, strict=True)
        assert [len(part) for part in again.values()] == [10, 3]
        for split, part in again.items():
            for a, b in zip(splits[split].records, part.records, strict=True):
                assert read_bytes(a.path) == read_bytes(b.path)
                assert np.array_equal(a.boxes, b.boxes)
    shards = sorted((tmp_path / "webdataset" / "train").iterdir())
    assert [path.name for path in shards] == ["000000.tar", "000001.tar", "000002.tar", "000003.tar"]
    convert(splits, tmp_path / "again", "webdataset")
    assert [path.read_bytes() for path in shards] == [
        path.read_bytes() for path in sorted((tmp_path / "again" / "train").iterdir())
    ]
    monkeypatch.setattr(webdataset, "_BYTES", 1)  # what is larger than a shard has one of its own
    convert(splits, tmp_path / "small", "webdataset")
    assert len(list((tmp_path / "small" / "train").iterdir())) == 10
    data = shards[2].read_bytes()
    shards[2].write_bytes(data[: len(data) - 12_000])
    with pytest.raises(DataError, match=r"000002\.tar: it is no plain tar file, or damaged"):
        open_splits(tmp_path / "webdataset")


def test_a_shard_of_others(tmp_path):
    """As WebDataset's own writer makes them: the image first, other members beside, some without boxes."""
    picture = io.BytesIO()
    Image.new("RGB", (60, 40)).save(picture, "PNG")
    objects = {"bbox": [[1, 2, 30, 20.5], [0, 0, 5, 5]], "categories": ["dog", "cat"]}
    files = {
        "a/0001.v2.png": b"not taken: WebDataset's name ends at the first dot",
        "a/0001.png": picture.getvalue(),
        "a/0001.json": json.dumps({"objects": objects}).encode(),
        "a/0001.txt": b"a dog",
        "a/0002.png": picture.getvalue(),
        "a/0003.json": b"{}",
    }
    (tmp_path / "set").mkdir()
    tar_of(tmp_path / "set" / "train-000000.tar", files)
    tar_of(tmp_path / "set" / "backup.tar", {"x.txt": b"x", "y.png": picture.getvalue()})  # no shard
    data = open_splits(tmp_path / "set")["train"]
    assert data.format == "webdataset"
    assert data.classes.names == ("cat", "dog")
    assert [r.size for r in data.records] == [(40, 60), (40, 60)]
    assert data.records[0].boxes.tolist() == [[1, 2, 31, 22.5], [0, 0, 5, 5]]
    assert data.records[0].labels.tolist() == [1, 0]
    assert not len(data.records[1].boxes)


def test_images_keep_their_names_through_shards(tmp_path):
    """However often they are written again, and where two shards have an image of one name."""
    names = ["a b.v2.jpg", "cam1/0001.jpg", "cam2/0001.jpg"]
    rows = []
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(tmp_path / "in" / name)
        rows.append({"image": tmp_path / "in" / name, "boxes": [[1, 2, 30, 20]], "labels": ["dog"]})
    data = open_dataset(rows, "train")
    for k in range(3):
        convert({"train": data}, tmp_path / str(k), "webdataset")
        data = open_dataset(tmp_path / str(k))
        assert [r.file_name for r in data] == names
    convert({"train": data}, tmp_path / "yolo", "yolo")
    found = {p.relative_to(tmp_path / "yolo/images/train").as_posix() for p in tmp_path.glob("yolo/images/**/*.jpg")}
    assert found == set(names)
    (tmp_path / "others").mkdir()
    picture = (tmp_path / "in" / names[1]).read_bytes()
    text = json.dumps({"objects": {"bbox": [[1, 2, 3, 4]], "categories": ["dog"]}}).encode()
    for k in range(2):
        tar_of(tmp_path / "others" / f"{k}.tar", {"0.jpg": picture, "0.json": text, f"x{k}.jpg": picture})
    others = [r.file_name for r in open_dataset(tmp_path / "others")]
    assert others == ["0.tar/0.jpg", "x0.jpg", "1.tar/0.jpg", "x1.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
@pytest.mark.parametrize("look", [open_splits, lambda folder: tars.members(folder / "a.tar")])
def test_a_pipe_in_place_of_a_shard_is_never_waited_for(tmp_path, look):
    os.mkfifo(tmp_path / "a.tar")
    told = []

    def run():
        with pytest.raises(FcosError) as error:
            look(tmp_path)
        told.append(str(error.value))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert told
