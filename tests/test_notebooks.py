"""The scripts of docs/notebooks run from beginning to end, and draw what they say."""

import runpy
from pathlib import Path

from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"


def test_the_paper(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    held = runpy.run_path(str(NOTEBOOKS / "the_paper.py"))
    drawn = sorted((tmp_path / "the-paper").iterdir())
    assert [path.name[0] for path in drawn] == list("12345")
    for path in drawn:
        with Image.open(path) as image:
            assert len(image.convert("L").getcolors(256) or ()) > 20, path  # not a blank sheet
    trained, larger, unsure = (held["rows"][name] for name in ("as trained", "boxes 20 % larger", "classes unknown"))
    assert trained.box < larger.box
    assert trained.classification < unsure.classification
    levels = {int(level) for level in held["points"].level[held["positives"].point]}
    assert len(levels) >= 3  # objects of three sizes are learned on as many levels
    assert "detections" in capsys.readouterr().out
