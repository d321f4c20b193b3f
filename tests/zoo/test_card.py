"""The model card says what the files say, and its images show what is right and what is not."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import fcos, learn, make_shapes, tiny_config

from fcos.cli import main
from fcos.data.records import Record
from fcos.detections import Detections
from fcos.errors import ConfigError, FcosError
from fcos.network import weights
from fcos.show import judged, sheets
from fcos.system.environment import RUN_FILE
from fcos.types import Classes
from fcos.zoo import card

FACTS = """
summary: A detector of discs.
data: Images of discs, 8 of them.
data_licence: CC0
licence: Apache-2.0
targets: {AP50: 0.62}
beside:
  - {name: Faster R-CNN R50-C4, AP: 0.424, AP50: 0.744, source: trained on the same images}
notes: [It has only seen discs.]
"""


def metrics(**more):
    rows = [(f"class{i}", 10 * i, 0.1 * i) for i in range(1, 7)] + [("never", 0, None)]
    return {
        "data": "/srv/data/voc2007", "split": "test", "images": 540, "AP": 0.4, "AP50": 0.655, "AP75": 0.41,
        "AP_small": 0.05, "AP_medium": 0.2, "AP_large": 0.5, "AR@100": 0.5, "VOC_AP50": 0.66, "VOC_AP50_11point": 0.64,
        "per_class": [
            {"name": n, "id": i, "objects": o, "AP": a, "AP50": a, "VOC_AP50": a, "VOC_AP50_11point": a,
             "best_F1": a, "best_F1_score": a}
            for i, (n, o, a) in enumerate(rows)
        ],
        **more,
    }  # fmt: skip


@pytest.fixture
def model(tmp_path):
    config = tiny_config(decode={"threshold": 0.0})
    torch.manual_seed(0)
    state = weights.build(config, 2).state_dict()
    told = {"command": "fcos train --data=/home/me/voc a=1", "date": "2026-11-23T10:00:00", "commit": "abc1234"}
    weights.save(tmp_path / "run" / "last.safetensors", state, config, Classes(("person", "cat")), about={"step": 77})
    (tmp_path / "run" / "environment.json").write_text(json.dumps(told))
    return tmp_path / "run"


def test_card_of_everything(model, tmp_path):
    (tmp_path / "facts.yaml").write_text(FACTS)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics()))
    out = tmp_path / "docs" / "discs.md"
    options = ("--metrics", tmp_path / "metrics.json", "--run", model, "--facts", tmp_path / "facts.yaml")
    with pytest.raises(SystemExit, match="0"):
        main(["models", "card", str(model), str(out), *map(str, options)])
    text = out.read_text()
    for line in (
        "A detector of discs.",
        "Licence: CC0",
        "| licence of the weights | Apache-2.0 |",
        "fcos train --data=voc a=1",
        "| date | 2026-11-23 |",
        "| commit | abc1234 |",
        "| steps | 77 |",
        "Measured with `fcos eval` on voc2007 test, 540 images.",
        "|  | this model | target | Faster R-CNN R50-C4 |",
        "| AP50 | 0.655 | >= 0.62 | 0.744 |",
        "| AP | 0.400 |  | 0.424 |",
        "| VOC AP50 11point | 0.640 |  |  |",
        "Faster R-CNN R50-C4: trained on the same images",
        "| class2 | 20 | 0.200 | 0.200 | 0.200 | 0.200 | 0.200 |",
        "| never | 0 | - | - | - | - | - |",
        "- The weakest classes by AP50: class1 (0.100), class2 (0.200), class3 (0.300).",
        "- AP by size of the object: small 0.050, medium 0.200, large 0.500 "
        "(small: below 32 x 32 pixels of the image).",
        "- It has only seen discs.",
    ):
        assert line in text.splitlines(), line
    assert "/home/me" not in text
    images = sorted(p.name for p in out.parent.glob("*.jpg"))  # an untrained detector finds none of the objects
    assert images == ["discs-bad.jpg"]
    assert "](discs-bad.jpg)" in text


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run judged by its val split, beside the data set that it learned from."""
    folder = tmp_path_factory.mktemp("ran")
    make_shapes(folder / "shapes", {"train": 10, "val": 5})
    tiny = tiny_config(decode={"shown": 0.125})
    return learn(tiny, folder / "shapes", folder / "runs" / "mine").folder


def test_the_card_of_a_run_folder_is_of_what_lies_there(run, capsys, monkeypatch):
    monkeypatch.chdir(run.parent.parent)
    assert fcos(capsys, "models", "card", "runs/mine", "card.md")[0] == 0
    text = (run.parent.parent / "card.md").read_text()
    assert text.startswith("# mine\n")
    assert "fcos predict photo.jpg --model runs/mine\n" in text  # which runs as it stands
    assert "| machine |" in text  # the recipe
    numbers = json.loads((run / "metrics.json").read_text())
    assert "Measured with `fcos eval` on shapes val, 5 images." in text
    assert f"| AP50 | {numbers['AP50']:.3f} |" in text
    assert "| disc |" in text
    assert "image" in text.partition("## Detections")[2]  # "image 0 ü", not the package's coffee
    assert "score >= 0.125" in text
    assert fcos(capsys, "models", "card", str(run), "again.md")[0] == 0
    assert (run.parent.parent / "again.md").read_text().replace("again-", "card-") == text


def test_numbers_of_other_weights_are_not_those_of_the_card(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "mine")
    numbers = json.loads((run / "metrics.json").read_text())
    (tmp_path / "mine" / "metrics.json").write_text(json.dumps({**numbers, "AP": 0.99}))
    assert fcos(capsys, "models", "card", "mine", "card.md")[0] == 0
    assert "0.990" not in (tmp_path / "card.md").read_text()


@pytest.mark.parametrize(
    ("options", "judged", "rc"), [((), "val", 0), (("--split", "train"), "train", 0), (("--split", "x"), "", 2)]
)
def test_the_images_of_a_card_are_of_one_split(options, judged, rc, run, model, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(sheets, "draw_sheets", lambda _, dataset, __: asked.append(dataset.split) or [])
    card_of = ("models", "card", str(model), str(tmp_path / "card.md"))
    assert fcos(capsys, *card_of, "--images", str(run.parent.parent / "shapes"), *options)[0] == rc
    assert asked == [judged] * (rc == 0)


def test_a_split_without_images_is_refused(model, tmp_path, capsys):
    file = tmp_path / "alone.safetensors"
    file.write_bytes((model / "last.safetensors").read_bytes())
    code, _, told = fcos(capsys, "models", "card", str(file), str(tmp_path / "card.md"), "--split", "val")
    assert code == 2
    assert "takes no --split" in told


def test_card_without_files_is_short_and_has_no_empty_parts(model):
    text = card.card("mine", model / "last.safetensors")
    assert "## Recipe" in text  # the step is in the file
    for absent in ("## Numbers", "## Data", "## Known", "## Detections", "target", "nan", "None", "---\nlibrary"):
        assert absent not in text


def test_an_evaluation_without_objects_of_a_size(model):
    text = card.card("mine", model / "last.safetensors", card.Evidence(metrics(AP_small=None, AP75=None)))
    assert "AP small" not in text
    assert "AP75" not in text
    assert "by size" not in text


def test_wrong_files(tmp_path):
    (tmp_path / "a.yaml").write_text("target: {AP: 1}")
    with pytest.raises(ConfigError, match=r"'target' is no fact.*targets"):
        card.read_facts(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        card.read_facts(tmp_path / "none.yaml")
    for content in (
        "{}",
        "[1]",
        "no json",
        '{"AP": 1, "per_class": []}',
        json.dumps({**metrics(), "per_class": [{"name": 3}]}),
    ):
        (tmp_path / "m.json").write_text(content)
        with pytest.raises(FcosError, match=r"m\.json"):
            card.read_metrics(tmp_path / "m.json")


def record(path=None):
    boxes = np.array([[0, 0, 40, 40], [50, 50, 90, 90], [60, 0, 100, 30]], np.float32)
    ignore = np.array([False, False, True])
    return Record(1, path, (100, 100), boxes, np.array([0, 1, 1]), ignore, np.zeros(3, np.float32), "p.png")


def found(*rows):
    boxes = torch.tensor([r[:4] for r in rows], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([r[4] for r in rows], dtype=torch.int64)
    return Detections(boxes, torch.linspace(0.9, 0.5, len(rows)), labels, torch.zeros_like(labels), names=("b", "a"))


def test_match_by_hand():
    rows = [
        (0, 0, 40, 38, 1),  # the first object: the model's class 1 is the data's 0
        (0, 0, 40, 39, 1),  # again: false
        (50, 50, 90, 90, 1),  # the second object under the wrong name
        (60, 0, 100, 30, 0),  # on the box to ignore
        (0, 60, 20, 80, 0),  # on nothing
    ]
    hit, used = judged.match(found(*rows), record(), np.array([1, 0]))
    assert hit.tolist() == [1, 0, 0, -1, 0]
    assert used.tolist() == [True, False, False]
    hit, used = judged.match(found(), record(), np.array([1, 0]))
    assert (len(hit), used.any()) == (0, False)


def test_a_image_is_coloured_by_what_is_right(tmp_path):
    Image.fromarray(np.full((100, 100, 3), 128, np.uint8)).save(tmp_path / "p.png")

    class Fake:
        classes = Classes(("b", "a"))

        def __call__(self, _, score):
            assert score == 0.4
            return found((0, 0, 40, 40, 1), (10, 60, 30, 90, 1))

    shown = sheets.show(Fake(), record(tmp_path / "p.png"), Classes(("a", "b")), 0.4)
    assert (shown.hits, shown.misses, shown.alarms, shown.good) == (1, 1, 1, False)
    assert shown.text() == "p: 1 found, 1 missed, 1 false"
    for y, x, color in ((39, 20, judged.GREEN), (89, 20, judged.RED), (89, 70, judged.ORANGE)):
        y, x = (round(4.8 * v) for v in (y, x))  # the cell is of 480 pixels
        near = shown.pixels[y - 8 : y + 9, x].astype(int)
        assert np.abs(near - np.array(color)).sum(axis=1).min() < 40, (y, x)


@pytest.mark.parametrize("text", ["targets: 3", "beside: [1]", "notes: {a: 1}", "summary: [1]", "targets: {AP: x}"])
def test_facts_of_the_wrong_kind_end_in_a_line(tmp_path, text):
    (tmp_path / "facts.yaml").write_text(text)
    with pytest.raises(ConfigError, match=text.partition(":")[0]):
        card.read_facts(tmp_path / "facts.yaml")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("fcos train ../../clients/acme/voc --out runs/x", "fcos train voc --out x"),
        ("fcos train ~me/secret/voc/ data.size=320", "fcos train voc data.size=320"),
        ("fcos train s3://bucket/x --init=/home/me/w.safetensors", "fcos train x --init=w.safetensors"),
        ("fcos train '/home/me/my data/voc'", "fcos train voc"),
        ("fcos train '/home/Doe, John/voc' 'data.classes=[\"a\"]'", "fcos train voc 'data.classes=[\"a\"]'"),
        ("fcos train 's3://bucket/x?sig=SECRET'", "fcos train x"),
        (r"fcos train C:\Users\bob\clients\voc --out=D:\runs\x", "fcos train voc --out=x"),
    ],
)
def test_nobody_learns_where_the_data_lay(command, told, tmp_path):
    (tmp_path / RUN_FILE).write_text(json.dumps({"command": command}))
    assert card.recipe(tmp_path)["command"] == told
