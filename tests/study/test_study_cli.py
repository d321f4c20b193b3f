"""Studies, doctor and explain as commands: what they write, and mistakes in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import NAMES, fcos, make_shapes, tiny_config

from fcos.errors import FcosError
from fcos.network import weights
from fcos.system import files
from fcos.types import Classes


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A data set and a network with random weights that fires everywhere."""
    folder = tmp_path_factory.mktemp("work")
    make_shapes(folder / "shapes", {"train": 4, "val": 3})
    torch.manual_seed(0)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 20})
    network = weights.build(config, 2)
    torch.nn.init.normal_(network.head.class_logits.weight, std=1.0)
    weights.save(folder / "model.safetensors", network.state_dict(), config, Classes(NAMES, (2, 7)))
    weights.save(folder / "other.safetensors", network.state_dict(), config, Classes(("cat", "dog")))
    return folder


@pytest.mark.parametrize("name", ["centerness", "nms", "proposals", "oracle", "ambiguity", "recall", "outputs"])
def test_each_study_writes_numbers_text_and_an_image(work, capsys, tmp_path, name):
    arguments = ["study", name, "--out", tmp_path, "--json"]
    if name != "outputs":
        arguments += ["--data", work / "shapes", "--model", work / "model.safetensors"]
    code, out, err = fcos(capsys, *arguments)
    assert code == 0, err
    report = json.loads(out)
    assert report["study"] == name
    assert report["environment"]["command"]
    assert json.loads((tmp_path / f"{name}.json").read_text()) == report
    assert (tmp_path / f"{name}.txt").read_text().strip()
    assert min(Image.open(tmp_path / f"{name}.png").size) > 300
    if name == "ambiguity":
        whole, own = report["detections"]
        assert 0 <= whole[1] <= whole[0] <= 1
        assert own[0] <= whole[0]


def test_what_was_computed_is_shown_where_it_cannot_be_written(capsys, tmp_path, monkeypatch):
    def full(path, *_):
        raise FcosError(f"cannot write {path}: the disk is full")

    monkeypatch.setattr(files, "write_whole", full)
    code, out, err = fcos(capsys, "study", "outputs", "--out", tmp_path)
    assert code == 2
    assert "anchors" in out
    assert err == f"fcos: cannot write {tmp_path / 'outputs.json'}: the disk is full\n"


def test_proposals_go_to_a_results_file(work, capsys, tmp_path):
    images = work / "shapes" / "images" / "val"
    model = ("--model", work / "model.safetensors", "--proposals")
    code, _, err = fcos(capsys, "predict", images, *model, "--coco", tmp_path / "p.json")
    assert code == 0, err
    rows = json.loads((tmp_path / "p.json").read_text())
    assert {r["category_id"] for r in rows} == {2}
    scores = np.array([r["score"] for r in rows if r["image_id"] == 1])
    assert len(scores) > 20  # more than the model's own limit
    assert (np.diff(scores) <= 0).all()
    code, _, err = fcos(capsys, "predict", images, *model)
    assert code == 2
    assert "--coco" in err


def test_explain_and_doctor_write_their_files(work, capsys, tmp_path):
    model = ("--model", work / "model.safetensors")
    image = next((work / "shapes" / "images" / "val").iterdir())
    code, _, err = fcos(capsys, "explain", image, *model, "--score", "0", "--out", tmp_path / "one")
    assert code == 0, err
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"explain.json", "boxes.jpg", "maps.jpg"}
    code, out, err = fcos(capsys, "explain", "--data", work / "shapes", *model, "--json", "--out", tmp_path / "all")
    assert code == 0, err
    report = json.loads(out)
    assert report["objects"] == report["found"] + sum(report["stages"].values())
    assert (tmp_path / "all" / "worst.jpg").exists()
    for which in (image.name, str(report["misses"][0]["image"])):  # by its name, by its id
        code, out, err = fcos(capsys, "explain", "--data", work / "shapes", *model, "--json", "--image", which)
        assert code == 0, err
        one = json.loads(out)
        of_it = [m for m in report["misses"] if which in (Path(m["file"]).name, str(m["image"]))]
        assert one["misses"] == of_it
    code, out, err = fcos(capsys, "doctor", "--data", work / "shapes", *model, "--json", "--out", tmp_path / "d.html")
    assert code in (0, 1), err
    assert json.loads(out)["trained_on"] == "train"
    assert "<img" in (tmp_path / "d.html").read_text()


def test_a_study_sees_the_data_as_eval_does(work, capsys, tmp_path):
    """A broken image is one without detections, classes left out by the settings are left out, others are refused."""
    shutil.copytree(work / "shapes", tmp_path / "shapes")
    broken = min((tmp_path / "shapes" / "images" / "val").iterdir())
    broken.write_bytes(broken.read_bytes()[:400])
    words = (tmp_path / "shapes", "--model", work / "model.safetensors", "--split", "val", "--json")
    for changes in ((), ("data.classes=[square]",)):
        code, out, err = fcos(capsys, "eval", *words, *(f"--set={c}" for c in changes))
        assert code == 0, err
        judged = json.loads(out)["AP"]
        code, out, err = fcos(capsys, "study", "oracle", *words, *changes, "--out", tmp_path / "out")
        assert code == 0, err
        assert json.loads(out)["rows"][0]["numbers"]["AP"] == pytest.approx(judged, abs=1e-6)
        assert "counted as an image without detections" in err
    file = tmp_path / "shapes" / "instances_val.json"
    told = json.loads(file.read_text())
    told["categories"].append({"id": 9, "name": "triangle"})
    file.write_text(json.dumps(told))
    for study in ("nms", "ambiguity", "proposals"):
        code, _, err = fcos(capsys, "study", study, *words, "--out", tmp_path / "out")
        assert (code, "does not know 1 of the data's 3 classes: 'triangle'" in err) == (2, True), err


MISTAKES = [
    (["study", "recal", "--data", "{shapes}"], ["did you mean recall"]),
    (["study", "recall"], ["--data"]),
    (["study", "nms", "{shapes}", "--model", "{model}", "--out", "{model}"], ["--out", "is a file; name a folder"]),
    (["study", "ablation", "{shapes}", "--out", "{model}"], ["--out", "is a file; name a folder"]),
    (["labels", "check", "{shapes}", "--minutes", "inf"], ["--minutes", "'inf'", "20160"]),
    (["labels", "propose", "{shapes}", "--to", "coco", "--out", "{shapes}"], ["{shapes} is there already"]),
    (["forecast", "{shapes}", "--more-minutes", "inf"], ["--more-minutes", "'inf'", "20160"]),
    (["forecast", "{shapes}", "--more-images", "9" * 30], ["--more-images", "1000000000"]),
    (["eval", "{shapes}", "--model", "{model}", "--ci", "--resamples", "9" * 25], ["--resamples", "100000"]),
    (["info", "{model}", "--classes", "9" * 25], ["--classes", "100000"]),
    (["bench", "{model}", "--threads", "9" * 25], ["threads", "512"]),
    (["track", "v.mp4", "--every", "9" * 25], ["--every", "1000000000"]),
    (["tune", "{shapes}", "--hours", "inf"], ["--hours", "'inf'", "8760"]),
    (["study", "nms", "--data", "{shapes}"], ["--model"]),
    (["study", "recall", "--data", "nowhere"], ["nowhere"]),
    (["study", "recall", "--data", "{shapes}", "data.sise=3"], ["data.sise", "data.size"]),
    (["study", "recall", "--data", "{shapes}", "--split", "tset"], ["tset"]),
    (["study", "nms", "--data", "{shapes}", "--model", "{gone}"], ["gone"]),
    (["study", "centerness", "--data", "{shapes}", "--model", "{other}"], ["disc", "cat"]),
    (["study", "oracle", "--data", "{boxes}", "--model", "{model}"], ["a.jpg"]),
    (["study", "recall", "--data", "{shapes}", "--baseline", "{gone}"], ["--baseline", "proposals"]),
    (["study", "proposals", "--data", "{shapes}", "--model", "{model}", "--baseline", "{gone}"], ["gone"]),
    (["study", "proposals", "--data", "{shapes}", "--model", "{model}", "--baseline", "{model}"], ["torchvision"]),
    (["study", "recall", "--data", "{shapes}", "--out", "{boxes}"], ["boxes.json"]),
    (["study", "ablation", "--data", "{boxes}"], ["no train split"]),
    (["study", "figures", "--data", "{shapes}", "--model", "fcos-r101"], ["fcos-r101", "without weights"]),
    (["doctor", "--data", "nowhere"], ["nowhere"]),
    (["doctor", "--data", "{shapes}", "--model", "fcos-lite9"], ["fcos-lite9"]),
    (["doctor", "--data", "{shapes}", "--model", "{gone}"], ["gone"]),
    (["doctor", "--data", "{boxes}", "--out", "{boxes}/page.html"], ["page.html"]),
    (["doctor", "--data", "{empty}"], ["empty.json"]),
    (["explain"], ["fcos explain IMAGE_OR_DATA"]),
    (["explain", "{gone}", "--model", "{model}"], ["gone"]),
    (["explain", "{boxes}", "--model", "{model}"], ["boxes.json"]),
    (["explain", "{folder}", "--model", "{model}"], ["{folder}"]),
    (["explain", "{gone}", "--data", "{shapes}"], ["--data"]),
    (["explain", "--data", "{shapes}", "--image", "99", "--model", "{model}"], ["no image 99"]),
    (["explain", "--data", "{shapes}", "--image", "a.jpg", "--model", "{model}"], ["no image a.jpg"]),
    (["explain", "--data", "{shapes}", "--model", "{other}"], ["disc", "cat"]),
    (["explain", "--data", "{broken}", "--model", "{model}"], ["a.jpg"]),
    (["explain", "--data", "{empty}", "--model", "{model}"], ["empty.json"]),
    (["eval", "--data", "{shapes}", "--compare", "{gone}.json", "{model}"], ["gone"]),
    (["eval", "--data", "{shapes}", "--compare", "{model}", "{other}"], ["disc"]),
    (["predict", "{shapes}", "--model", "{model}", "--score", "disk=0.2"], ["disk", "did you mean disc"]),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(a)[:60] for a, _ in MISTAKES])
def test_mistakes_are_one_line_and_exit_code_2(arguments, words, work, capsys, tmp_path):
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 90, "height": 90}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50]}],
        "categories": [{"id": 1, "name": "disc"}],
    }
    places = {"shapes": work / "shapes", "model": work / "model.safetensors", "other": work / "other.safetensors"}
    for name in ("boxes", "broken", "empty"):
        folder = tmp_path / name / "set"  # far enough from each other that nobody finds the others' images
        folder.mkdir(parents=True)
        places[name] = folder / f"{name}.json"
        places[name].write_text(json.dumps(truth if name != "empty" else {**truth, "images": [], "annotations": []}))
    (places["broken"].parent / "a.jpg").write_bytes(b"\xff\xd8 no jpeg")
    places |= {"gone": tmp_path / "gone", "folder": places["empty"].parent}
    code, out, err = fcos(capsys, *(a.format(**places) for a in arguments))
    assert code == 2, (out, err)
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    for word in words:
        assert word.format(**places) in last, err


def test_images_that_lie_elsewhere(work, capsys, tmp_path):
    """--images, --labels and --format settle by hand what study and explain read."""
    images = tmp_path / "elsewhere"
    images.mkdir()
    for path in (work / "shapes" / "images" / "val").iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    lonely = tmp_path / "annotations" / "instances_val.json"
    lonely.parent.mkdir()
    lonely.write_bytes((work / "shapes" / "instances_val.json").read_bytes())
    told = ["--data", lonely.parent, "--model", work / "model.safetensors", "--json"]
    for verb in (["study", "ambiguity"], ["explain"]):
        code, out, err = fcos(capsys, *verb, *told, "--images", images, "--format", "coco")
        assert code == 0, err
        json.loads(out)
    code, _, err = fcos(capsys, "explain", *told, "--format", "cocoa")
    assert code == 2
    assert "there is no format 'cocoa'" in err
