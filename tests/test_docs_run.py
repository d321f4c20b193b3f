"""What README and the quickstart tell a reader to type is typed, in order, in a folder that has what they name."""

import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_docs import ROOT, blocks, commands

from fcos.cli import main
from fcos.files import ASSETS

pytestmark = pytest.mark.slow
PAGES = ["README.md", "docs/quickstart.md"]
NOT_HERE = {
    "fcos demo": "trains for minutes; .ci/run runs it from the wheel",
    "fcos export --model runs/mine --format html": "near-ties alone after two steps; tests/export has a trained one",
    "fcos serve": "serves until it is stopped; tests/serving starts it",
}
SHORT = (
    "train.iterations=2 train.warmup=1 data.size=64 data.max_size=96 data.train_sizes=[] data.workers=0 train.batch=2"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """my_data (four photographs with boxes), my_photos, photo.jpg and clip.mp4."""
    for name in ("my_data", "my_photos"):
        shutil.copytree(ASSETS / "photos", tmp_path / name)
    (tmp_path / "my_photos" / "instances.json").unlink()
    shutil.copytree(tmp_path / "my_photos", tmp_path / "photos")
    shutil.copy(ASSETS / "photos" / "cat.jpg", tmp_path / "photo.jpg")
    clip = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    for k in range(6):
        clip.write(np.full((64, 96, 3), 40 * k, np.uint8))
    clip.release()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page, folder, capsys):
    ran = 0
    for command in commands(ROOT / page):
        if any(command.startswith(start) for start in NOT_HERE):
            continue
        words = shlex.split(command)[1:]
        if words[0] == "train":
            if "--minutes" in words:  # has a clock of its own: tests/training/test_minutes.py
                at = words.index("--minutes")
                del words[at : at + 2]
            words += shlex.split(SHORT)
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0, f"{command}: {capsys.readouterr().err[-500:]}"
        ran += 1
    assert ran >= 5
    assert Path("runs/mine/report.html").exists()


@pytest.mark.parametrize("page", PAGES)
def test_python_runs(page, folder):
    for text in blocks(ROOT / page, "python"):
        exec(compile(text, page, "exec"), {"__name__": page})
