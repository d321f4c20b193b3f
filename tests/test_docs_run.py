"""What the pages tell a reader to type is typed: page by page, in order, in a folder that holds what they name.

What cannot run here says why in the page itself, in a comment in front of the block:

    <!-- not run: it needs two machines -->             the whole block
    <!-- not run: `fcos serve`: it serves until it is stopped -->    the commands that begin so

One page alone: pytest -m slow -n 0 tests/test_docs_run.py -k evaluation
"""

import importlib.util
import json
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from docpages import FENCE, name
from docpages import PAGES as ALL
from torchvision.models.detection import fcos_resnet50_fpn

import fcos
from fcos.cli import main
from fcos.system.files import ASSETS

LOGS = {  # pages whose commands took hours, or are run by another test
    "docs/measurements": "logs of what was run once",
    "docs/models/": "recipes of the weights, hours each",
    "docs/reference/python.md": "signatures; tests/test_doctests.py runs the examples",
    "docs/method.md": "tests/test_notebooks.py runs the script that it is made from",
}
PAGES = [page for page in ALL if not name(page).startswith(tuple(LOGS)) and FENCE.search(page.read_text("utf-8"))]
SHELL = ("", "sh", "bash", "console")
# what pages use and [test] does not bring: it is tried where it is installed
ABSENT = [name for name in ("pandas", "ray") if importlib.util.find_spec(name) is None]
OTHERS = (
    "pip ",
    "python -m venv",
    "python3 -m venv",
    ". .venv",
    "git clone",
    "cd ",
    "pytest",
    "ruff ",
    "mypy",
)  # .ci/run does them
NOTE = re.compile(r"<!-- not run: (?:`([^`]+)`: )?(.+?) -->")
NOTED = re.compile(r"((?:<!-- not run:[^>]*-->\s*)*)^( *)```(\w*)[^\n]*\n(.*?)^\2```", re.M | re.S)
# two steps that change next to nothing, so that the detector of the package goes on to detect
SHORT = shlex.split(
    "train.iterations=2 train.warmup=1 train.lr=1e-9 train.batch=2 data.workers=0 data.size=192 data.max_size=320 "
    "data.train_sizes=[]"
)


@dataclass
class Block:
    """A block of a page: its language and text, and what of it does not run: None is all of it."""

    language: str
    text: str
    left_out: list[str | None] = field(default_factory=list)

    def commands(self):
        """(words of a command, file that its output goes to) of the lines that shall run; others' commands too."""
        for line in self.text.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||(?<!\S)\||;", re.sub(r"(^| )#.*", "", line)):
                command = part.strip().removeprefix("$ ")
                if command and not any(start is None or command.startswith(start) for start in self.left_out):
                    command, _, target = command.partition(">")
                    yield shlex.split(command), target.strip()


def blocks_of(page):
    for notes, _, language, text in NOTED.findall(page.read_text(encoding="utf-8")):
        yield Block(language, text, [command or None for command, _ in NOTE.findall(notes)])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_does_not_run_says_why(page):
    """Every command is one of fcos or one that .ci/run types; every comment belongs to a block and to a command."""
    text = page.read_text(encoding="utf-8")
    blocks = list(blocks_of(page))
    assert sum(len(b.left_out) for b in blocks) == text.count("<!-- not run:")
    for block in blocks:
        for start in block.left_out:
            assert start is None or re.search(rf"(^|&& ){re.escape(start)}", block.text, re.M), (start, block.text)
        if block.language in SHELL:
            for words, _ in block.commands():
                assert words[0] == "fcos" or (" ".join(words) + " ").startswith(OTHERS), words


def make_set(folder):
    """Three splits of the package's photographs (as they are, mirrored, mirrored and moved up) with the
    classes of VOC. None is upside down: what hardly anything is found in cannot show that an export is good."""
    names = fcos.load("fcos-lite0", device="cpu").classes.names
    data = fcos.open_dataset(ASSETS / "photos")
    for split, mirrored, top in (("train", False, 0), ("val", True, 0), ("test", True, 40)):
        images, annotations = [], []
        (folder / "images" / split).mkdir(parents=True)
        for number, record in enumerate(data.records, 1):
            pixels = cv2.imread(str(record.path))[top:, :: -1 if mirrored else 1]
            pixels = cv2.copyMakeBorder(pixels, 0, top, 0, 0, cv2.BORDER_REPLICATE)  # of the same size
            height, width = pixels.shape[:2]
            cv2.imwrite(str(folder / "images" / split / record.path.name), pixels)
            images.append({"id": number, "file_name": record.path.name, "width": width, "height": height})
            for (x1, y1, x2, y2), label in zip(record.boxes.tolist(), record.labels, strict=True):
                x1, x2 = (width - x2, width - x1) if mirrored else (x1, x2)
                y1, y2 = max(0, y1 - top), y2 - top
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0,
                     "area": (x2 - x1) * (y2 - y1), "category_id": 1 + names.index(data.classes.names[label])}
                )  # fmt: skip
        told = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1 + k, "name": word} for k, word in enumerate(names)],
        }
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(told))


def make_whole(folder):
    """The photographs with their boxes, each three times and no split; the copies are parts, so that none is a twin."""
    data = fcos.open_dataset(ASSETS / "photos")
    images, annotations = [], []
    folder.mkdir(parents=True)
    for record in data.records:
        pixels = cv2.imread(str(record.path))
        for way, (top, left) in enumerate(((0, 0), (40, 0), (0, 60))):
            name = f"{record.path.stem}-{way}.jpg"
            part = pixels[top:, left:]
            cv2.imwrite(str(folder / name), part)
            height, width = part.shape[:2]
            images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
            for (x1, y1, x2, y2), label in zip(record.boxes.tolist(), record.labels, strict=True):
                x, y = max(x1 - left, 0), max(y1 - top, 0)
                size = (x2 - left - x, y2 - top - y)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": len(images), "bbox": [x, y, *size], "iscrowd": 0,
                     "area": size[0] * size[1], "category_id": int(label) + 1}
                )  # fmt: skip
    categories = [{"id": k + 1, "name": word} for k, word in enumerate(data.classes.names)]
    told = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(told))


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """What the pages name: data sets, photographs, a large one, videos, a results file, decisions, a trained run."""
    folder = tmp_path_factory.mktemp("pages")
    make_set(folder / "my_data")
    photos = sorted((ASSETS / "photos").glob("*.jpg"))
    for place in ("my_photos", "photos", "many"):
        (folder / place).mkdir()
        for photo in photos:
            shutil.copy(photo, folder / place)
    shutil.copy(ASSETS / "photos" / "cat.jpg", folder / "photo.jpg")
    cat = cv2.imread(str(folder / "photo.jpg"))
    for large in ("big.jpg", "big.tif"):
        cv2.imwrite(str(folder / large), cv2.resize(cat, (1000, 800)))
    for video in ("clip.mp4", "street.mp4"):
        clip = cv2.VideoWriter(str(folder / video), cv2.VideoWriter_fourcc(*"mp4v"), 10, (320, 240))
        for k in range(6):
            clip.write(np.ascontiguousarray(cat[20:260, 10 * k : 320 + 10 * k]))
        clip.release()
    test = folder / "my_data" / "annotations" / "instances_test.json"
    shutil.copy(test, folder / "instances_val2017.json")
    truth = json.loads(test.read_text())["annotations"]
    keys = ("image_id", "category_id", "bbox")
    found = [{**{key: row[key] for key in keys}, "score": 0.9} for row in truth]
    (folder / "results.json").write_text(json.dumps(found))
    (folder / "decisions.json").write_text('{"fcos": "label decisions", "data": "my_data", "decisions": []}')
    rows = [f"{frame},1,{30 - 10 * frame + 100},60,150,150,1,1,1" for frame in range(1, 7)]
    (folder / "truth.txt").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def world(template, tmp_path, monkeypatch):
    """A copy of the template, as the current folder. fcos.train takes two steps in it."""
    folder = tmp_path / "world"
    shutil.copytree(template, folder, ignore=shutil.ignore_patterns("runs"))
    monkeypatch.chdir(folder)
    train = fcos.train

    def short(*data, minutes=None, settings=None, **others):
        if "out" in others and not others.get("resume"):
            shutil.rmtree(others["out"], ignore_errors=True)
        return train(*data, settings=(settings or ()) if others.get("resume") else SHORT, **others)

    monkeypatch.setattr(fcos, "train", short)
    return folder


SETS = ("DATA", "bccd", "voc2007", "VOC2007", "data/cells")
WHOLE = ("my_images", "mine", "theirs", "COCO")  # without splits
SEQUENCE = "MOT17-02/img1"  # frames as images
TORCHVISION = "fcos_resnet50_fpn_coco.pth"
RUNS = ("runs/mine", "runs/other", "runs/one", "runs/two", "runs/cells")


def furnish(folder, template, text):
    """Add the sets and runs that a page names."""
    for word in SETS:
        if re.search(rf"(?<![\w/]){word}(?![\w/.])", text):
            shutil.copytree(folder / "my_data", folder / word)
    for word in WHOLE:
        if re.search(rf"(?<![\w/]){word}(?![\w/.])", text):
            make_whole(folder / word)
    if SEQUENCE in text:
        for number, photo in enumerate(sorted((folder / "photos").iterdir()), 1):
            (folder / SEQUENCE).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / SEQUENCE / f"{number:06d}.jpg"), cv2.resize(cv2.imread(str(photo)), (320, 240)))
    if TORCHVISION in text:
        torch.save(fcos_resnet50_fpn(weights=None, weights_backbone=None).state_dict(), folder / TORCHVISION)
    if "runs/" in text:
        trained = template / "runs" / "mine"
        if not trained.exists():
            with pytest.raises(SystemExit) as ended:
                # of the template's images: those of this page are gone when the next one asks the run for its data
                main(["train", str(template / "my_data"), "--out", str(trained), "--quiet", *SHORT])
            assert ended.value.code == 0
        for word in RUNS:
            if word in text and not (folder / word).exists():
                shutil.copytree(trained, folder / word)


def shorten(words):
    """The same command, small."""
    words = list(words)

    def value(option, new=None):
        if option in words:
            at = words.index(option)
            words[at : at + 2] = [option, new] if new else []

    if words[0] == "train":
        value("--minutes")  # has a clock of its own: tests/training/test_minutes.py
        if "--resume" in words:
            value("--epochs", "3")
            return [*words, *(["train.iterations=0"] if "--epochs" in words else [])]
        if "--out" in words:
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
        value("--epochs", "1")
        words += SHORT
    elif words[:2] == ["study", "ablation"]:
        value("--seeds", "1")
        words += SHORT
    elif words[:2] == ["study", "versus"]:
        value("--epochs")
        value("--minutes")
        value("--seeds", "1")
        words += ["--methods", "retinanet,fcos", *SHORT]
    elif words[0] == "bench":
        value("--size")
        value("--rounds")
        words += ["--rounds", "1", "--size", "96"]
    elif words[:2] == ["labels", "check"] and "--model" not in words:
        words += ["--folds", "2", "--minutes", "0.2"]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_the_page_says_runs(page, world, template, capsys):
    text = page.read_text(encoding="utf-8")
    furnish(world, template, text)
    held = {"__name__": name(page)}
    for block in blocks_of(page):
        if block.language == "yaml" and None not in block.left_out:
            Path("facts.yaml").write_text(block.text)
    for block in blocks_of(page):
        if None in block.left_out:
            continue
        if block.language == "python" and not any(f"import {name}\n" in block.text for name in ABSENT):
            exec(compile(block.text, name(page), "exec"), held)
        if block.language not in SHELL:
            continue
        for words, target in block.commands():
            if words[0] != "fcos" or not set(ABSENT).isdisjoint(words):
                continue
            with pytest.raises(SystemExit) as ended:
                main(shorten(words[1:]))
            told = capsys.readouterr()
            fine = (0, 1) if words[1] == "doctor" else (0,)  # 1: it found something serious
            assert ended.value.code in fine, f"{shlex.join(words)}: {told.err[-500:]}"
            if target:
                Path(target).write_text(told.out)
