"""The attack on the verbs: wrong command lines, and damaged weights, exports and run folders, through `fcos` itself.

Each ends with exit code 0, 1 or 2; 2 with one line; files that were not named as output stay as they are; an export
that was changed is refused. A few cases here, 2,000 with `-m slow`, under the limits of tests/limits.py.
"""

import hashlib
import random
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from limits import Silent, attack, damaged, run
from tiny import learn, make_shapes, tiny_config

from fcos.export.about import About
from fcos.export.open import write_export
from fcos.network import weights
from fcos.types import Classes

CASES = [12, pytest.param(2000, marks=pytest.mark.slow)]
CLASSES = Classes(("disc", "square"), (2, 7))
LINES = """
predict a.png --model m.safetensors --device cpu --out out
predict set/images/val --model m.safetensors --json --yolo y --coco c.json --score disc=0.1
predict set --model m.safetensors --tile 64 --overlap 0.2 --out out
predict v.avi --model m.safetensors --out out --every 2
predict set/images/train --model m.safetensors --proposals --coco c.json --data set
eval set --model m.safetensors --device cpu --out out
eval set --detections b.json --json
explain a.png --model m.safetensors --out out
study recall set --out out
study outputs --json
track v.avi --model m.safetensors --out out --count-line 0,10,64,10
data info set --json
data convert set out --to yolo --link
data split set out --holdout 0.5
data merge set set out --rename disc=ring
data show set --out o.jpg --count 2
doctor set --model m.safetensors --no-search --out o.html
labels apply b.json --out out --data set
convert m.pth o.safetensors --names names.txt
convert m.safetensors o.pth --to torchvision
models pack m.safetensors o.safetensors --licence MIT
info m.safetensors --size 64x96
config m.safetensors train.lr=0.1
""".strip().splitlines()
WORDS = [
    *("", " ", "-", "--", "=", "a\nb", "\udcff", "²", "NaN", "-1", "0", "1e308", "9" * 30, "x" * 3000, "*", "**"),
    *(
        "..",
        "/dev/null",
        "/dev/zero",
        "nothing",
        "set",
        "a.png",
        "m.safetensors",
        "m.pth",
        "v.avi",
        "names.txt",
        "b.json",
    ),
    *("train.lr=nan", "data.size=1e9", "model.strides=[0]", "--json", "--out", "--model", "--device", "fcos-r50"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: a data set, weights, an export, a run, an image, a video, lists."""
    folder = tmp_path_factory.mktemp("base")
    make_shapes(folder / "set", {"train": 2, "val": 2})
    config = tiny_config(train={"iterations": 1})
    learn(config, folder / "set", folder / "run")
    network = weights.build(config, 2)
    weights.save(folder / "m.safetensors", network.state_dict(), config, CLASSES)
    torch.save({"state_dict": network.state_dict()}, folder / "m.pth")
    write_export(network, About(config, CLASSES, 1, (64, 96)), "torchscript", folder / "m.torchscript")
    shutil.copy(next((folder / "set").rglob("*.png")), folder / "a.png")
    video = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for level in (0, 200):
        video.write(np.full((48, 64, 3), level, np.uint8))
    video.release()
    (folder / "names.txt").write_text("disc\nsquare\n")
    (folder / "b.json").write_text('[{"image_id": 3, "category_id": 2, "bbox": [1, 2, 30, 20], "score": 0.5}]')
    return folder


def inside(path: Path) -> dict[str, bytes]:
    """What a zip file holds; between its entries lies padding that means nothing."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def copied(base: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(base, folder))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", CASES)
def test_any_command_line(base, tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)  # a relative path must not reach the checkout

    def gate(rng: random.Random) -> None:
        words = rng.choice(LINES).split()
        first = 2 if words[0] in ("study", "data", "labels", "models") else 1
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = rng.randrange(first, len(words) + 1)
            words[at : at + rng.choice((0, 1))] = rng.choice([[], [rng.choice(WORDS)], [rng.choice(WORDS)]])
        folder = copied(base, tmp_path / "w")
        monkeypatch.chdir(folder)
        before = {p: hashlib.sha256(p.read_bytes()).digest() for p in folder.rglob("*") if p.is_file()}
        run(words)
        for path, digest in before.items():
            named = str(path.relative_to(folder)) in words  # as an output, which may be written anew
            if not path.is_file() or (not named and hashlib.sha256(path.read_bytes()).digest() != digest):
                raise Silent(f"{path.name} was lost or written over by {words}")

    attack(count, gate)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", CASES)
@pytest.mark.parametrize("name", ["m.safetensors", "m.pth", "m.torchscript"])
def test_any_model_file(base, tmp_path, name, count):
    whole = (base / name).read_bytes()

    def gate(rng: random.Random) -> None:
        path = tmp_path / name
        path.write_bytes(damaged(whole, rng))
        line = ["convert", str(path), str(tmp_path / "o.safetensors")] if name == "m.pth" else ["info", str(path)]
        if run(line) == 0 and name == "m.torchscript" and inside(path) != inside(base / name):
            raise Silent("a changed export was taken")

    attack(count, gate)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [4, pytest.param(500, marks=pytest.mark.slow)])
def test_any_run_folder(base, tmp_path, count):
    names = sorted(p.relative_to(base / "run") for p in (base / "run").rglob("*") if p.is_file())

    def gate(rng: random.Random) -> None:
        folder = copied(base / "run", tmp_path / "run")
        path = folder / rng.choice(names)
        kind = rng.randrange(4)
        if kind == 0:
            path.unlink()
        elif kind == 1:
            path.write_bytes((folder / rng.choice(names)).read_bytes())
        else:
            path.write_bytes(damaged(path.read_bytes(), rng))
        run(["train", "--resume", "--out", str(folder), "--device", "cpu"])

    attack(count, gate)
