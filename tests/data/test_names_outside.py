"""What a stranger's file says never leads to a file outside: names of images, of members of a tar file, of splits."""

import io
import json
import os
import tarfile
from dataclasses import replace

import pytest
from PIL import Image

from fcos.cli import main
from fcos.data.open import open_dataset, open_splits
from fcos.data.registry import formats
from fcos.data.write import convert
from fcos.errors import DataError

WRITTEN = [name for name, form in formats().items() if form.write is not None]
BOX = [10, 20, 30, 40]  # x, y, width, height


def jpeg(size=(100, 80)):
    file = io.BytesIO()
    Image.new("RGB", size, (120, 10, 150)).save(file, "JPEG")
    return file.getvalue()


def shard(path, *names):
    """A tar file with an image and its JSON under each name."""
    text = json.dumps({"objects": {"bbox": [BOX], "categories": ["cat"]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            for called, content in ((f"{os.path.splitext(name)[0]}.json", text), (name, jpeg())):
                member = tarfile.TarInfo(called)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def files_outside(root, *own):
    """What lies below `root` and in none of `own`."""
    return [p for p in root.rglob("*") if p.is_file() and not any(p.is_relative_to(place) for place in own)]


@pytest.mark.parametrize("to", WRITTEN)
def test_members_of_a_tar_file_stay_in_it_and_in_the_folder_written(tmp_path, to):
    names = ["../../../../evil.jpg", str(tmp_path / "secret.jpg"), "a/../../b.jpg", "../../evil/c.jpg"]
    source = shard(tmp_path / "source" / "train" / "0.tar", *names)
    (tmp_path / "secret.jpg").write_bytes(jpeg((55, 77)))
    before = open_dataset(tmp_path / "source")
    assert len(before) == 4
    assert {record.size for record in before} == {(80, 100)}  # none is the file outside
    assert all(record.path.is_relative_to(source) and ".." not in record.path.parts for record in before)
    folder = tmp_path / "p" / "q" / "r" / "out"
    convert({"train": before}, folder, to)
    assert files_outside(tmp_path, folder, tmp_path / "source") == [tmp_path / "secret.jpg"]
    after = open_splits(folder)["train"]
    assert [record.boxes.tolist() for record in after] == [[[10, 20, 40, 60]]] * 4


@pytest.mark.parametrize("to", WRITTEN)
def test_names_of_a_program_stay_in_the_folder_written(tmp_path, to):
    (tmp_path / "one.jpg").write_bytes(jpeg())
    row = {"image": tmp_path / "one.jpg", "boxes": [[10, 20, 40, 60]], "labels": ["cat"]}
    given = open_dataset([row], "train")
    names = ["../../up.jpg", "/root.jpg", "a//./b.jpg", "..", ".hidden.jpg", "__MACOSX/c.jpg", ".d/e.jpg"]
    records = [replace(given[0], id=k, file_name=name) for k, name in enumerate(names, 1)]
    folder = tmp_path / "p" / "q" / "out"
    lost = convert({"train": replace(given, records=records)}, folder, to)
    assert "another name for 7 images" in lost[-1]
    assert files_outside(tmp_path, folder) == [tmp_path / "one.jpg"]
    after = open_splits(folder)["train"]
    assert len(after) == len(names)  # none is passed over as a hidden file
    assert not any(note.level == "skipped" for note in after.notes)


SPLITS = ["../../pwn", "/pwn", "a/b", "a\\b", "..", ".hidden", "a\nb"]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("form", ["cvat", "ndjson"])
def test_a_split_that_is_no_name_of_a_folder_is_refused(tmp_path, monkeypatch, capsys, form, split):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.jpg").write_bytes(jpeg())
    if form == "cvat":
        file = tmp_path / "s" / "annotations.xml"
        named = split.replace("\n", "&#10;")
        file.write_text(
            f'<annotations><meta/><image name="a.jpg" subset="{named}" width="100" height="80">'
            '<box label="cat" xtl="10" ytl="20" xbr="40" ybr="60"/></image></annotations>'
        )
    else:
        file = tmp_path / "s" / "set.ndjson"
        row = {"type": "image", "file": "a.jpg", "split": split, "annotations": {"boxes": [[0, 0.5, 0.5, 0.1, 0.1]]}}
        file.write_text("\n".join(map(json.dumps, ({"type": "dataset", "class_names": {"0": "cat"}}, row))))
    with pytest.raises(DataError, match=r"annotations\.xml|set\.ndjson") as caught:
        open_splits(file)
    assert "a split is called" in str(caught.value)
    assert "no name of a folder" in str(caught.value)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for words in (["show", str(file)], ["convert", str(file), "p/q/out", "--to", "coco"]):
        with pytest.raises(SystemExit) as ended:
            main(["data", *words])
        assert ended.value.code == 2
    assert files_outside(tmp_path, tmp_path / "s") == []
    assert "a split is called" in capsys.readouterr().err


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_of_a_program_is_refused_too(tmp_path, split):
    (tmp_path / "one.jpg").write_bytes(jpeg())
    row = {"image": tmp_path / "one.jpg", "boxes": [[10, 20, 40, 60]], "labels": ["cat"]}
    with pytest.raises(DataError, match="no name of a folder"):
        convert({split: open_dataset([row])}, tmp_path / "out", "coco")
    assert files_outside(tmp_path) == [tmp_path / "one.jpg"]
