"""No verb writes over a file that it reads, nor over one whose name says that it is something else."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny import fcos, make_shapes, tiny_config

from fcos.errors import FcosError
from fcos.network import weights
from fcos.system.files import own, sources_kept, write_whole
from fcos.system.readers import read_text
from fcos.types import Classes


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_shapes(folder / "set", {"train": 2, "val": 2})
    config = tiny_config()
    network = weights.build(config, 2)
    weights.save(folder / "m.safetensors", network.state_dict(), config, Classes(("disc", "square")))
    torch.save({"state_dict": network.state_dict()}, folder / "m.pth")
    image = next((folder / "set" / "images" / "val").glob("*.png"))
    shutil.copy(image, folder / "boxes.jpg")
    shutil.copy(image, folder / "holiday.png")
    video = cv2.VideoWriter(str(folder / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (64, 48))
    for level in (0, 200):
        video.write(np.full((48, 64, 3), level, np.uint8))
    video.release()
    truth = folder / "set" / "instances_val.json"
    (folder / "named").mkdir()
    for name in ("metrics.json", "recall.json", "ambiguity.json", "explain.json", "comparison.json"):
        shutil.copy(truth, folder / "named" / name)
    (folder / "facts.md").write_text("summary: a\n")
    rows = [{"image_id": 3, "category_id": 2, "bbox": [1, 2, 30, 20], "score": 0.5}]
    (folder / "detections.json").write_text(json.dumps(rows))
    return folder


# What is read is also what is to be written.
LINES = """
predict boxes.jpg --model m.safetensors --out .
predict holiday.png --model m.safetensors --out .
predict v.mp4 --model m.safetensors --out .
track v.mp4 --model m.safetensors --out .
explain boxes.jpg --model m.safetensors --out .
explain --data named/explain.json --images set/images --model m.safetensors --out named
eval --data named/metrics.json --images set/images --model m.safetensors --out named
eval set --detections detections.json --out .
eval --data named/comparison.json --compare detections.json detections.json --resamples 10 --out named
study recall --data named/recall.json --out named
study ambiguity --data named/ambiguity.json --out named
data show set --split train --out {image}
models pack m.safetensors m.safetensors
models card m.safetensors facts.md --facts facts.md
export m.safetensors --out m.safetensors
doctor set --no-search --no-images --out holiday.png
labels check set --model m.safetensors --out holiday.png
models card m.safetensors holiday.png
convert m.pth holiday.png
export m.safetensors --format onnx --out holiday.png
predict boxes.jpg --model m.safetensors --coco holiday.png
data results rows holiday.png
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", LINES.strip().splitlines())
def test_no_verb_writes_over_what_it_reads(base, tmp_path, monkeypatch, capsys, line):
    folder = Path(shutil.copytree(base, tmp_path / "w"))
    monkeypatch.chdir(folder)
    image = min(p for p in (folder / "set").rglob("*.png") if "train" in str(p))
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, _, err = fcos(capsys, *(word.format(image=image.relative_to(folder)) for word in line.split()))
    assert [p.name for p, content in before.items() if not p.is_file() or p.read_bytes() != content] == []
    assert code == 2, err
    assert any(part in err for part in ("would be overwritten", "ends in", "must end in", "no file of PyTorch")), err


def test_a_link_to_a_source_is_a_source(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    (tmp_path / "b.txt").symlink_to("a.txt")
    with sources_kept():
        assert read_text(tmp_path / "a.txt") == "mine"
        with pytest.raises(FcosError, match="overwritten"):
            write_whole(tmp_path / "b.txt", "new")
    write_whole(tmp_path / "a.txt", "new")  # a program in Python may do as it likes


def test_what_the_program_wrote_it_writes_anew(tmp_path):
    (tmp_path / "old.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.txt").write_text("1")
    with sources_kept():
        for text in "ab":
            assert read_text(write_whole(tmp_path / "new.txt", text)) == text
            write_whole(tmp_path / "old.txt", text)  # never read: an output of an earlier command
        read_text(tmp_path / "run" / "state.txt")
        own(tmp_path / "run")
        write_whole(tmp_path / "run" / "state.txt", "2")
    assert (tmp_path / "run" / "state.txt").read_text() == "2"


def test_results_are_written_anew_by_the_same_command(base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(base, tmp_path / "w"))
    for line in (
        "eval set --model m.safetensors --out results",
        "predict boxes.jpg --model m.safetensors --coco found.json",
        "doctor set --no-search --no-images --out page.html",
        "data show set --out sheet.jpg",
    ):
        for _ in range(2):
            code, _, err = fcos(capsys, *line.split())
            assert code in (0, 1), err
            assert "overwritten" not in err
