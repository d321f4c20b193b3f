"""The command line as a user meets it: results on stdout, one-line errors, exit codes."""

import csv
import json
import os
import re
import shutil
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import NAMES, fcos, learn, make_shapes, tiny_config

from fcos import presets
from fcos.cli import common
from fcos.data.open import open_splits
from fcos.inference.load import load
from fcos.inference.video import frame_line
from fcos.network import weights
from fcos.tracking.follow import follow, make_tracker
from fcos.tracking.tracks import TrackConfig
from fcos.types import Classes


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A data set and a model that has seen it for a moment."""
    folder = tmp_path_factory.mktemp("a folder")
    data = make_shapes(folder / "shapes", {"train": 8, "val": 4, "test": 5})
    config = tiny_config(model={"backbone_norm": "batch"}, decode={"threshold": 0.0})
    learn(config, {"train": open_splits(data)["train"]}, folder / "run")
    return folder


def test_train_eval_predict(work, capsys, tmp_path):
    settings = [
        "train.epochs=1",
        "data.size=64",
        "data.max_size=96",
        "data.train_sizes=[]",
        "model.backbone=plain",
        "train.plots=false",
    ]
    code, _, err = fcos(
        capsys, "train", "--data", work / "shapes", "--out", tmp_path / "run", "--device", "cpu", "--init", "none",
        "--model", "fcos-lite0", "model.backbone_weights=none", "train.batch=4", "data.workers=0", *settings,
    )  # fmt: skip
    assert code == 0, err
    assert "disc (id 2)" in err
    code, out, err = fcos(capsys, "eval", "--model", tmp_path / "run", "--data", work / "shapes", "--json")
    assert code == 0, err
    assert json.loads(out)["images"] == 5  # the test split


def test_what_no_model_means_is_the_same_everywhere():
    assert common.DEFAULT == presets.DEFAULT


def test_a_dialect_is_no_setting(capsys):
    """It would change the label of a model and nothing else."""
    code, _, err = fcos(capsys, "config", "fcos-r50", "dialect=detectron2")
    assert code == 2
    assert "'dialect=detectron2' is no setting but a whole set of them; give --dialect detectron2" in err
    code, out, _ = fcos(capsys, "config", "fcos-r50", "--dialect", "detectron2")
    assert code == 0
    assert re.search(r"^dialect +detectron2", out, re.M)


def test_what_predict_drew_is_no_image_to_detect_in(work, capsys, tmp_path, monkeypatch):
    shutil.copytree(work / "shapes" / "images" / "val", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    counts = []
    for _ in range(2):
        code, out, err = fcos(capsys, "predict", ".", "--model", work / "run", "--device", "cpu")
        assert code == 0, err
        counts.append(len(out.splitlines()))
    assert counts == [4, 4]


def test_predict_goes_on_past_a_broken_image(work, capsys, tmp_path):
    folder = tmp_path / "my images"
    folder.mkdir()
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(folder / "good ü.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no jpeg")
    out_folder = tmp_path / "out"
    code, out, err = fcos(
        capsys, "predict", folder, "--model", work / "run", "--json", "--score", "0", "--out", out_folder,
        "--yolo", tmp_path / "yolo", "--coco", tmp_path / "coco.json",
    )  # fmt: skip
    assert code == 1
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == [str(folder / "good ü.png")]
    assert (lines[0]["width"], lines[0]["height"]) == (60, 40)
    assert "broken.jpg" in err
    assert Image.open(out_folder / "good ü.png").size == (60, 40)
    rows = json.loads((tmp_path / "coco.json").read_text())
    assert {r["category_id"] for r in rows} <= {2, 7}
    assert len((tmp_path / "yolo" / "good ü.txt").read_text().splitlines()) == len(rows) > 0


def test_predict_keeps_the_sub_folders_of_a_folder(work, capsys, tmp_path):
    """Cameras give one name in each folder; which file is of which image has to be seen."""
    for name in ("IMG_1.jpg", "a/IMG_1.jpg", "a/b/IMG_1.jpg", "a/b/IMG_1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(tmp_path / "in" / name)
    where = ("--out", tmp_path / "out", "--yolo", tmp_path / "yolo")
    code, _, err = fcos(capsys, "predict", tmp_path / "in", "--model", work / "run", *where)
    assert code == 0, err
    drawn, labels = (sorted(p.relative_to(f).as_posix() for p in f.rglob("*.*")) for f in (where[1], where[3]))
    assert drawn == ["IMG_1.jpg", "a/IMG_1.jpg", "a/b/IMG_1-2.png", "a/b/IMG_1.jpg"]
    assert labels == ["IMG_1.txt", "a/IMG_1.txt", "a/b/IMG_1-2.txt", "a/b/IMG_1.txt"]
    assert f"what was found in {tmp_path / 'in' / 'a' / 'b' / 'IMG_1.png'} is called a/b/IMG_1-2" in err


@pytest.mark.skipif(os.name != "posix", reason="other systems take no such names")
def test_odd_names_of_files(work, capsys, tmp_path):
    """A control character of a name never reaches the terminal, and a name that is no UTF-8 stops no verb."""
    data = tmp_path / "data"
    for folder in ("images", "labels"):
        (data / folder).mkdir(parents=True)
    (data / "data.yaml").write_text("train: images\nnames: [disc, square]\n")
    names = ("a\nb", "\x1b[31mred", "\u202etxt", os.fsdecode(b"\xff\xfe"))
    for name in names:
        Image.new("RGB", (40, 30), "white").save(data / "images" / f"{name}.png")
        (data / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    model = ("--model", work / "run")
    code, out, err = fcos(capsys, "predict", data / "images", *model, "--out", tmp_path / "drawn")
    assert code == 0, err
    assert len(out.splitlines()) == len(names)
    assert all(line.isprintable() for line in out.splitlines())
    code, out, err = fcos(capsys, "labels", "check", data, *model, "--out", tmp_path / "page.html")
    assert code == 0, err
    assert all(line.isprintable() for line in out.splitlines())
    assert "</html>" in (tmp_path / "page.html").read_text()
    code, _, err = fcos(capsys, "doctor", data, *model, "--no-search", "--json", "--out", tmp_path / "doctor.html")
    assert code in (0, 1), err


def test_info_models_config(capsys):
    code, out, _ = fcos(capsys, "info", "fcos-lite1", "--json", "--size", "64", "--classes", "2")
    info = json.loads(out)
    assert code == 0
    assert info["anchor_outputs"] / info["outputs"] == pytest.approx(9 * 6 / 7)
    for asked, number in ((["--classes", "3"], 3), ([], 20)):  # the bundled weights know VOC's classes
        _, out, _ = fcos(capsys, "info", "fcos-lite0", "--json", "--size", "64", *asked)
        info = json.loads(out)
        assert info["outputs"] % (number + 5) == 0
        assert len(info["names"]) == (number == 20) * 20  # those of the weights
        assert info["anchor_outputs"] / info["outputs"] == pytest.approx(9 * (number + 4) / (number + 5))
    _, out, _ = fcos(capsys, "info", "fcos-lite0", "--size", "64")
    told = dict(line.split(None, 1) for line in out.splitlines()[1:6])
    assert list(told) == ["classes", "shown", "judged", "licence", "recipe"]
    assert told["classes"].startswith("aeroplane, bicycle, ")
    assert told["licence"] == "Apache-2.0"
    assert told["judged"].startswith("AP 0.4")
    _, out, _ = fcos(capsys, "models", "--json")
    assert {"fcos-lite0", "fcos-r50", "fcos-r50-2019", "fcos-hrnet-w32"} <= {m["name"] for m in json.loads(out)}
    _, out, _ = fcos(capsys, "config", "fcos-r50", "train.lr=0.02", "--dialect", "mmdet")
    assert "train.lr" in out
    assert "0.02" in out
    assert "learning rate" in out


MISTAKES = [
    (["train"], ["fcos train"]),
    (["train", "--data", "nowhere"], ["nowhere"]),
    (["train", "--data", "{shapes}", "train.batchsize=3"], ["train.batchsize", "train.batch?"]),
    (["train", "--data", "{shapes}", "--model", "fcos-lite7"], ["fcos-lite7", "did you mean"]),
    (["train", "--data", "{shapes}", "--split", "tain"], ["tain", "train, val, test"]),
    (["train", "--data", "{shapes}", "--device", "cuda:77", "--out", "{tmp}/x"], ["cuda:77", "--device cpu"]),
    (["train", "--data", "{shapes}", "--dialect", "tensorflow"], ["tensorflow", "detectron2"]),
    (["train", "--resume", "--out", "{tmp}/none"], ["no checkpoint"]),
    *(
        (["train", "--resume", "--out", "{run}", option, value], [option, "leave it out"])
        for option, value in (
            ("--model", "fcos-lite0"),
            ("--init", "none"),
            ("--config", "{tmp}/settings.yaml"),
            ("--dialect", "mmdet"),
            ("--holdout", "0.1"),
        )
    ),
    (["train", "--data", "{shapes}", "--out", "{tmp}/v", "model.backbone=vit_tiny_patch16_224"], ["stride 8"]),
    (["train", "--data", "{shapes}", "--out", "{run}", "model.backbone_weights=none"], ["holds a run", "--resume"]),
    (["train", "--data", "{shapes}", "--out", "{tmp}/y", "model.backbone=resnet5o"], ["resnet5o", "did you mean"]),
    (["train", "--data", "{shapes}", "--out", "{tmp}/z", "model.backbone_weights=gone.pth"], ["gone.pth"]),
    (["train", "--data", "{empty}"], ["{empty}"]),
    (["eval", "--model", "{run}", "--data", "{other}"], ["cat"]),
    (["eval", "--model", "{tmp}/gone.safetensors", "--data", "{shapes}"], ["gone.safetensors"]),
    (["eval", "--detections", "{tmp}/gone.json", "--data", "{shapes}"], ["gone.json"]),
    (["predict", "{tmp}/no.jpg", "--model", "{run}"], ["no.jpg"]),
    (["predict", "{tmp}", "--model", "{run}"], ["holds no images"]),
    (["predict", "{shapes}", "--model", "fcos-r50"], ["fcos-r50", "without weights"]),
    (["predict", "{shapes}", "--model", "{run}", "--set", "decode.nms_iou=7"], ["decode.nms_iou", "7"]),
    (["info", "fcos-r50", "--size", "huge"], ["huge"]),
    (["config", "fcos-r5"], ["fcos-r50"]),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(a)[:60] for a, _ in MISTAKES])
def test_mistakes_are_one_line_and_exit_code_2(arguments, words, work, capsys, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}], "annotations":
                    [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}],
                    "categories": [{"id": 1, "name": "cat"}]})
    )  # fmt: skip
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    (tmp_path / "sub").mkdir()
    places = {"shapes": work / "shapes", "run": work / "run", "tmp": tmp_path / "sub", "other": other, "empty": empty}
    code, out, err = fcos(capsys, *(a.format(**places) for a in arguments))
    assert code == 2, (out, err)
    last = err.strip().splitlines()[-1]
    assert "Traceback" not in err
    for word in words:
        assert word.format(**places) in last, err


def test_nan_weights_do_not_break_prediction(work, capsys, tmp_path):
    config = tiny_config()
    network = weights.build(config, 2)
    torch.nn.init.constant_(network.head.class_logits.bias, float("nan"))
    path = weights.save(tmp_path / "nan.safetensors", network.state_dict(), config, Classes(NAMES))
    code, _, _ = fcos(capsys, "predict", work / "shapes" / "images" / "val", "--model", path, "--json")
    assert code == 0


def test_settings_and_the_thing_acted_on_stand_alike_in_all_verbs(work, capsys, tmp_path):
    """KEY=VALUE behind, or --set; the data or model alone, or behind its option."""
    ways = [
        (["eval", work / "shapes", "--model", work / "run"], ["eval", "-d", work / "shapes", "-m", work / "run"]),
        (["info", work / "run"], ["info", "--model", work / "run"]),
        (["doctor", work / "shapes", "--model", work / "run", "--no-search"],
         ["doctor", "-d", work / "shapes", "-m", work / "run", "--no-search"]),
        (["study", "recall", work / "shapes", "--model", work / "run"],
         ["study", "recall", "-d", work / "shapes", "-m", work / "run"]),
        (["study", "outputs", "--model", work / "run"], ["study", "outputs", "-m", work / "run"]),
    ]  # fmt: skip
    for alone, named in ways:
        told = []
        for words, setting in ((alone, ["data.size=96"]), (named, ["--set", "data.size=96"])):
            code, out, err = fcos(capsys, *words, *setting, "--json")
            assert code in (0, 1), err
            told.append(json.loads(out))
            told[-1] = {k: v for k, v in told[-1].items() if k not in ("environment", "seconds")}
        assert told[0] == told[1], alone[0]
    code, plain, err = fcos(capsys, "info", work / "run", "--json")
    assert code == 0, err
    code, changed, err = fcos(capsys, "info", work / "run", "data.size=96", "--json")
    assert code == 0, err
    assert json.loads(plain) != json.loads(changed)


def test_a_file_whose_name_reads_like_a_setting_is_a_file(work, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save("a=1.png")
    code, out, err = fcos(capsys, "predict", "a=1.png", "decode.nms_iou=0.5", "--model", work / "run", "--json")
    assert code == 0, err
    assert json.loads(out)["file"] == "a=1.png"
    code, _, err = fcos(capsys, "predict", "a=1.png", "decode.nms_iuo=1", "--model", work / "run", "--json")
    assert (code, "nms_iou" in err) == (2, True)


@pytest.mark.parametrize("verb", ["train", "eval", "predict", "doctor", "explain", "study", "export", "bench", "info"])
def test_examples_in_the_help_stay_on_their_lines(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    code, out, _ = fcos(capsys, verb, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert any(f"fcos {verb} " in line and "Usage" not in line for line in out.splitlines())
    assert "--set" in out


def test_info_as_json_is_json(capsys):
    def no_constant(name):
        raise AssertionError(f"{name} is no JSON")

    _, out, _ = fcos(capsys, "info", "fcos-lite0", "--json")
    levels = json.loads(out, parse_constant=no_constant)["levels"]
    assert [level["upper"] for level in levels][-1] is None
    assert all(a["upper"] == b["lower"] for a, b in pairwise(levels))


def test_who_finds_nothing_is_told_of_a_lower_score(work, capsys, tmp_path):
    image = next((work / "shapes" / "images" / "val").iterdir())
    common = ("predict", image, "--model", work / "run", "--out", tmp_path / "found")
    code, out, err = fcos(capsys, *common, "--score", "1")
    assert (code, "nothing" in out) == (0, True)
    assert "nothing scores 1 or more; to see weaker detections: --score 0.1" in err
    code, _, err = fcos(capsys, *common, "--score", "0")
    assert (code, "nothing scores" in err) == (0, False)
    code, _, err = fcos(capsys, *common, "--score", f"{NAMES[0]}=1,{NAMES[1]}=0.9999")
    assert "nothing scores as much as is asked for; to see weaker" in err


def test_classes_alone_and_a_table(work, capsys, tmp_path):
    """The rows of the table are those of --json, of the classes that were named."""
    images = sorted((work / "shapes" / "images" / "val").iterdir())
    common = ("predict", *images, "--model", work / "run", "--score", "0")
    code, out, err = fcos(capsys, *common, "--json")
    assert code == 0, err
    every = [(t["file"], d) for t in map(json.loads, out.splitlines()) for d in t["detections"]]
    assert {d["label"] for _, d in every} == set(NAMES)
    code, _, err = fcos(capsys, *common, "--classes", NAMES[1].upper(), "--csv", tmp_path / "all.csv")
    assert code == 0, err
    assert "table:" in err
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = [(file, d) for file, d in every if d["label"] == NAMES[1]]
    assert [row["file"] for row in rows] == [file for file, _ in wanted]
    assert [row["name"] for row in rows] == [NAMES[1]] * len(wanted)
    corners = np.array([[float(row[k]) for k in ("x1", "y1", "x2", "y2")] for row in rows])
    np.testing.assert_allclose(corners, [d["box"] for _, d in wanted], atol=0.006)
    for words, told in (
        (("--classes", "cow"), "--classes: the model has no class 'cow'"),
        (("--csv", tmp_path / "x.txt"), "a table is CSV"),
        (("--out", tmp_path / "x.csv"), "a table of all: --csv FILE"),
    ):
        code, _, err = fcos(capsys, *common, *words)
        assert (code, told in err) == (2, True), err


def clip_of(path, image, frames=4):
    frame = cv2.imdecode(np.fromfile(image, np.uint8), cv2.IMREAD_COLOR)
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, frame.shape[1::-1])
    for _ in range(frames):
        clip.write(frame)
    clip.release()


def test_videos_of_one_name_keep_files_of_their_own_and_patterns_find_them(work, capsys, tmp_path, monkeypatch):
    image = sorted((work / "shapes" / "images" / "val").iterdir())[0]
    for folder, frames in (("a", 2), ("b", 3)):
        clip_of(tmp_path / folder / "clip.mp4", image, frames)
    (tmp_path / "a" / "still.png").write_bytes(image.read_bytes())
    monkeypatch.chdir(tmp_path)
    model = ("--model", work / "run")
    code, out, err = fcos(capsys, "predict", "a/clip.mp4", "b/*.mp4", *model, "--out", "found", "--json")
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == ["a/clip.mp4"] * 2 + ["b/clip.mp4"] * 3
    assert sorted(p.name for p in Path("found").iterdir()) == ["clip-2.jsonl", "clip-2.mp4", "clip.jsonl", "clip.mp4"]
    assert [len(Path("found", name).read_text().splitlines()) for name in ("clip.jsonl", "clip-2.jsonl")] == [2, 3]
    code, out, err = fcos(capsys, "predict", "a", *model, "--out", "still")
    assert (code, "a has 1 video, which is left out; name each" in err) == (0, True), err
    code, out, err = fcos(capsys, "predict", "a/*", *model, "--out", "both")
    assert (code, {p.suffix for p in Path("both").iterdir()}) == (0, {".mp4", ".jsonl", ".png"}), err
    for out in ("found.jpg", "found.mp4"):
        code, _, err = fcos(capsys, "predict", "a/clip.mp4", *model, "--out", out)
        assert (code, f"--out {out}: of a video several files are written; name a folder" in err) == (2, True), err


def test_track_begins_tracks_at_the_models_own_score(work, capsys, tmp_path):
    clip_of(tmp_path / "clip.mp4", sorted((work / "shapes" / "images" / "val").iterdir())[0])
    for shown, any_object in (("0", True), ("1", False)):
        arguments = ("track", tmp_path / "clip.mp4", "--model", work / "run", "--no-video", "--out", tmp_path / shown)
        code, out, _ = fcos(capsys, *arguments, f"decode.shown={shown}", "decode.threshold=0")
        assert code == 0, out
        assert (not out.startswith("0 objects in 4 frames")) == any_object, out
        if any_object:  # "3 objects (2 disc, 1 square) in 4 frames"
            assert re.match(r"(\d+) objects? \(\d+ (disc|square)(, \d+ (disc|square))?\) in 4 frames", out), out


@pytest.mark.parametrize("tracker", ["bytetrack", "ocsort"])
def test_the_ids_are_the_same_from_the_command_and_from_python(work, capsys, tmp_path, tracker):
    clip_of(tmp_path / "clip.mp4", sorted((work / "shapes" / "images" / "val").iterdir())[0])
    settings = {"decode.shown": 0.02, "decode.threshold": 0.01}
    words = [f"{key}={value}" for key, value in settings.items()]
    arguments = ("track", tmp_path / "clip.mp4", "--model", work / "run", "--no-video", "--out", tmp_path / "t")
    code, _, err = fcos(capsys, *arguments, "--tracker", tracker, *words)
    assert code == 0, err
    model = load(work / "run", overrides=settings)
    config = TrackConfig.from_score(model.shown)
    frames = follow(model.stream(tmp_path / "clip.mp4", score=config.low), make_tracker(tracker, config))
    assert [frame_line(frame) for frame in frames] == (tmp_path / "t" / "clip.jsonl").read_text().splitlines()
    assert (tmp_path / "t" / "clip.txt").read_text()


def test_a_folder_of_images_is_tracked_as_a_video_is(work, capsys, tmp_path):
    folder, out = work / "shapes" / "images" / "val", tmp_path / "t"
    words = ("--model", work / "run", "--no-video", "--out", out, "decode.shown=0", "decode.threshold=0")
    code, told, err = fcos(capsys, "track", folder, *words, "--rate", "2")
    assert (code, "in 4 frames" in told) == (0, True), err
    assert [json.loads(line)["time"] for line in (out / "val.jsonl").read_text().splitlines()] == [0, 0.5, 1, 1.5]
    clip_of(tmp_path / "clip.mp4", next(folder.iterdir()))
    code, _, err = fcos(capsys, "track", tmp_path / "clip.mp4", *words, "--rate", "2")
    assert (code, "a rate is for images" in err) == (2, True)


def test_less_is_told_that_a_page_has_colours(capsys, monkeypatch):
    """Or it shows their codes as text, as pydoc starts it on Python 3.11."""
    import pydoc
    import sys

    seen = []
    monkeypatch.setenv("LESS", "")
    monkeypatch.delenv("LESS")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(pydoc, "pager", lambda text: seen.append((text, os.environ.get("LESS"))))
    code, _, err = fcos(capsys, "help", "quickstart")
    assert code == 0, err
    ((text, options),) = seen
    assert "Quickstart" in text
    assert options == "-R"


@pytest.mark.parametrize("page", ["quickstart", "reference/cli"])
def test_a_page_in_a_pipe_has_no_comments(page, capsys):
    code, out, _ = fcos(capsys, "help", page)
    assert code == 0
    assert out.startswith("# ")
    assert "<!--" not in out


@pytest.mark.parametrize("needed", [True, False])
def test_where_nobody_reads_files_are_written_all_the_same(monkeypatch, needed):
    from fcos.cli import predict_run

    heard = []

    def echo(line):
        if len(heard) == 2:
            raise BrokenPipeError
        heard.append(line)

    monkeypatch.setattr(predict_run.typer, "echo", echo)
    listener, done = predict_run.Listener(), []

    def work():
        for line in "abcde":
            listener.tell(line, needed)
            done.append(line)
        listener.check()

    with pytest.raises(BrokenPipeError):
        work()
    assert heard == ["a", "b"]
    assert done == (["a", "b"] if needed else ["a", "b", "c", "d", "e"])
