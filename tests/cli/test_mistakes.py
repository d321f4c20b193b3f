"""Mistakes on the command line: one line that names the thing, the value and the fix, exit code 2."""

import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import fcos, make_shapes

import fcos as fcos_package
from fcos.cli.common import _LEARNING
from fcos.config import Config, DataConfig
from fcos.export.about import About
from fcos.export.formats import torchscript
from fcos.types import Classes
from fcos.zoo.models import known_models


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "a.jpg", "--foo"], ["--foo", "see fcos predict --help"]),
        (["predict"], ["fcos predict IMAGE"]),
        (["predict", "decode.nms_iou=0.5"], ["fcos predict IMAGE"]),
        (["eval", "one", "two", "--model", "m"], ["'one' and 'two'", "--data"]),
        (["predict", ""], ["empty name"]),
        (["predict", "a.jpg", "--batch", "many"], ["--batch", "'many'"]),
        (["convert", "a.pth", "b.pth", "--to", "yolo"], ["--to", "'yolo'", "'torchvision'"]),
        (["evaluate"], ["'evaluate'", "fcos --help"]),
        (["eval"], ["fcos eval DATA"]),
        (["eval", "runs/none"], ["no folder or file runs/none"]),
        (["eval", "--model", "runs/none"], ["no folder or file runs/none"]),
        (["explain", "--model", "runs/none"], ["no folder or file runs/none"]),
        (["eval", "."], ["measure on .", "--model MODEL"]),
        (["doctor"], ["fcos doctor DATA"]),
        (["eval", "D", "--compare", "a.json", "b.json", "--iou", "0.3"], ["--compare takes no --iou; leave it out"]),
        (["bench", "fcos-lite0", "--batch="], ["--batch", "whole numbers"]),
        (["models", "pack", "fcos-lite0", "a.safetensors", "--licence", "x" * 1001], ["--licence", "1,001", "1,000"]),
        (["explain"], ["fcos explain"]),
        (["study", "versus", "D", "--minutes", "3", "train.epochs=2"], ["train.epochs and --minutes both say"]),
        (["train", "D", "--minuts", "3"], ["no such option: --minuts; did you mean --minutes? See"]),
        (
            ["train", "D", "--lrr", "1"],
            ["no such option: --lrr; settings are KEY=VALUE: train.lr=0.0", "; see fcos train"],
        ),
        (["train", "D", "--imgsz", "640"], ["KEY=VALUE: data.size="]),
        (["train", "D", "--batch-size", "4"], ["KEY=VALUE: train.batch="]),
        (["predict", "D", "--crops", "c"], ["no such option: --crops; did you mean --cpus? See"]),  # not data.crop
        (["predict", "D", "--lr", "1"], ["no such option: --lr; see fcos predict --help"]),  # not train.lr
        (["predict", "D", "--imgsz", "640"], ["KEY=VALUE: data.size="]),
        (["train", "D", "--zzzz"], ["no such option: --zzzz; see"]),
        (["data", "info", "D", "--lr", "1"], ["no such option: --lr; see"]),  # it takes no settings
        (["train", "D", "--minutes", "abc"], ["'--minutes': 'abc'", " valid "]),
        (["config", "train.lr=fast"], ["train.lr='fast': it should be a valid number\n"]),
        (["config", "train.compile=maybe"], ["train.compile='maybe': it should be a valid boolean\n"]),
    ],
)
def test_wrong_command_lines_are_one_line(capsys, arguments, words):
    code, out, err = fcos(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("fcos: ")
    assert not [word for word in words if word not in err], err
    assert "unable to" not in err  # which would say the same again


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("eval --mot a b --out D --ci", "--mot takes no --out and no --ci; they change nothing"),
        ("eval --ci --mot a b --out D", "--mot takes no --ci and no --out; they change nothing"),
        ("eval D --compare a.json b.json --ci", "--compare takes no --ci; it changes nothing"),
        ("eval D --compare a.json b.json --score 0.3", "--compare takes no --score; it changes nothing"),
        ("eval D --model m --seed 1 --resamples 50", "without --ci and --compare takes no --resamples and no --seed"),
        ("eval D --detections a.json --tta flip", "a file of detections takes no --tta; it changes nothing"),
        ("labels check D --limit 5", "a check without --out takes no --limit; it changes nothing"),
        ("labels check D --model fcos-lite0 --folds 3", "a check with --model takes no --folds; it changes nothing"),
        ("labels apply a.json --out D --format coco", "a correction without --data takes no --format"),
        ("explain --data E --image a.jpg --limit 5 --model none", "--image takes no --limit; it changes nothing"),
        ("predict a.jpg --every 7", "a run without a video takes no --every; it changes nothing"),
        ("predict a.jpg --parts jsonl", "a run without --engine takes no --parts; it changes nothing"),
        ("predict a.jpg --engine local --lanes 2", "--engine takes no --lanes; it changes nothing"),
        (
            "predict a.jpg data.classes=dog",
            "is for training, and detecting does not use it; for some classes only: --",
        ),
        ("track a.mp4 train.lr=1", "train.lr=1 is for training, and detecting does not use it"),
        ("serve --model none data.mosaic=1", "data.mosaic=1 is for training"),
        ("track a.mp4 --margin 0", "a video without --count-line and --zone takes no --margin; it changes nothing"),
        ("study ablation D --limit 5", "the study ablation takes no --limit; it changes nothing"),
        ("study recall D --seeds 5", "the study recall, unlike ablation and versus, takes no --seeds"),
        ("convert a b.pth --to mmdet --names n.txt", "--to takes no --names; it changes nothing"),
        ("convert a b.pth --to mmdet train.lr=1", "--to takes no settings"),
        ("export none --images 5", "an export without --calibrate takes no --images; it changes nothing"),
        ("export none --split val", "an export without --data takes no --split; it changes nothing"),
        ("train --replay nan.pt --minutes 5", "--replay takes no --minutes; it changes nothing"),
        ("train D --max-restarts 2", "training without --engine ray takes no --max-restarts; it changes nothing"),
        ("models pack none a.safetensors --split val", "pack without --calibrate takes no --split"),
        ("models push fcos-lite0 a/b --card a.md --facts b.yaml", "push with a card of your own takes no --facts"),
        ("data show D --model x", "a sheet without --augment takes no --model; it changes nothing"),
    ],
)
def test_options_that_change_nothing_are_told_and_the_work_goes_on(capsys, tmp_path, monkeypatch, line, note):
    """1.0.0 took them without a word; here each line then ends at a file that is missing."""
    monkeypatch.chdir(tmp_path)
    code, out, err = fcos(capsys, *line.split())
    first, second = err.splitlines()
    assert (code, out) == (2, "")
    assert first.startswith("fcos: note: ")
    assert note in first
    assert "takes no" not in second


def test_a_command_line_of_1_0_0_still_works(capsys, tmp_path):
    image = next((make_shapes(tmp_path / "shapes", {"val": 1}) / "images").rglob("*.png"))
    words = ("predict", image, "--json", "--runtime", "torch")
    plain = fcos(capsys, *words)
    more = fcos(capsys, *words, "--every", "2", "--overlap", "0.3", "--parts", "3", "train.lr=1")
    assert (plain[0], more[0]) == (0, 0)
    assert [row["detections"] for row in map(json.loads, more[1].splitlines())] == [
        row["detections"] for row in map(json.loads, plain[1].splitlines())
    ]
    assert more[2].count("fcos: note: ") == 4


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("predict a.jpg --conf 0.3", "did you mean --score?"),
        ("predict a.jpg --confidence 0.3", "did you mean --score?"),
        ("predict a.jpg --threshold 0.3", "did you mean --score?"),
        ("predict a.jpg --conf_thres 0.3", "did you mean --score?"),
        ("predict a.jpg --iou 0.5", "settings are KEY=VALUE: decode.nms_iou=0.6"),
        ("train D --iou 0.5", "settings are KEY=VALUE: decode.nms_iou=0.6"),
        ("predict a.jpg --max-det 50", "settings are KEY=VALUE: decode.max_detections=100"),
        ("predict a.jpg --weights x", "did you mean --model?"),
        ("train D --weights x", "did you mean --init?"),
        ("train D --name x", "did you mean --out?"),
        ("train D --project x", "did you mean --out?"),
        ("predict a.jpg --output-dir x", "did you mean --out?"),
        ("predict a.jpg --show", "did you mean --out?"),
        ("train D --time 0.1", "did you mean --minutes?"),
        ("train D --num-gpus 2", "did you mean --devices?"),
        ("train D --gpus 2", "did you mean --devices?"),
        ("train D --work-dir x", "did you mean --out?"),
        ("train D --class-weights 1", "settings are KEY=VALUE: train.balance="),
        ("train D --cos-lr", "settings are KEY=VALUE: train.schedule="),
        ("train D --resolution 560", "settings are KEY=VALUE: data.size="),
        ("train D resume=True", "resume=True is no setting; see --resume"),
        ("train D device=0", "device=0 is no setting; write --device 0"),
        ("predict a.jpg --vid-stride 2", "did you mean --every?"),
        ("predict a.jpg --agnostic-nms", "settings are KEY=VALUE: decode.nms=agnostic"),
        ("predict a.jpg --half", "did you mean --dtype?"),
        ("predict a.jpg augment=True", "augment=True is no setting; see --tta"),
        ("predict a.jpg --filter 3", "did you mean --classes?"),
        ("predict --source a.jpg", "it stands alone, as IMAGE"),
        ("train --source D", "it stands alone, as DATA"),
        ("predict a.jpg --save-txt", "did you mean --yolo?"),
        ("data info D --conf 1", "no such option: --conf; see"),  # nothing that it could be
        ("train D --conf 0.3", "decode.shown="),  # not --config
        ("train data=D epochs=1", "data=D is no setting; name D alone"),
        ("predict source=a.jpg", "source=a.jpg is no setting; name a.jpg alone"),
        ("predict a.jpg model=x.pt", "model=x.pt is no setting; write --model x.pt"),
        ("predict a.jpg weights=x.pt", "weights=x.pt is no setting; write --model x.pt"),
        ("train D weights=x.pt", "weights=x.pt is no setting; write --init x.pt"),
        ("train D conf=0.3", "conf=0.3 is no setting; write decode.shown=0.3"),
        ("predict a.jpg save_txt=True", "save_txt=True is no setting; see --yolo"),
        ("doctor data=D", "data=D is no setting; name D alone"),
        ("train D time=2", "time=2 is no setting; see --minutes"),
        ("predict a.jpg conf=0.3", "conf=0.3 is no setting; write --score 0.3"),
        ("predict a.jpg iou=0.5", "iou=0.5 is no setting; write decode.nms_iou=0.5"),
    ],
)
def test_options_of_other_programs_lead_to_those_of_this_one(capsys, line, advice):
    code, out, err = fcos(capsys, *line.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert advice in err


@pytest.mark.parametrize(
    ("tile", "told"),
    [
        ((), "a model of whole images without --tile takes no --overlap; it changes nothing"),
        (("--tile", "none"), "--tile none takes no --overlap; it changes nothing"),
        (("--tile", "64"), None),
    ],
)
def test_overlap_is_for_tiles_in_every_verb(capsys, tmp_path, tile, told):
    data = make_shapes(tmp_path / "shapes", {"val": 1})
    image = next((data / "images").rglob("*.png"))
    for words in (
        ("predict", image, "--json"),
        ("predict", image, "--json", "--proposals"),
        ("eval", data, "--model", "fcos-lite0"),
        ("explain", image),
        ("explain", data),
        ("track", "no.mp4"),
    ):
        code, _, err = fcos(capsys, *words, *tile, "--overlap", "0.5")
        if told is None:
            assert "--overlap" not in err, words
        else:
            assert told in err, words
            assert code == 0 or data in words or "track" in words, words  # of other classes, and no video


def test_paths_that_are_nearly_right(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("mydata", "runs/mine", "runs/other"):
        (tmp_path / place).mkdir(parents=True)
    for name in ("photo.jpg", "html.png", "runs/mine/best.safetensors", "good.onnx"):
        (tmp_path / name).touch()
    for line, end in (
        ("data info mydat", "mydat; did you mean mydata?"),
        ("train mydat", "mydat; did you mean mydata?"),
        ("predict phto.jpg", "phto.jpg; did you mean photo.jpg?"),
        ("predict photo.jpg --model run/mine", "run/mine, and no model of that name; did you mean runs/mine?"),
        ("predict photo.jpg --model runs/min", "runs/min, and no model of that name; did you mean runs/mine?"),
        ("predict photo.jpg --model runs/zzzz", "no model of that name; `fcos models` lists them"),
        ("predict photo.jpg --model html", "'html'; `fcos models` lists them: {models}"),  # a picture is no model
        ("predict photo.jpg --model mydat", "'mydat'; `fcos models` lists them: {models}"),  # nor is another folder
        ("predict photo.jpg --model god.onnx", "god.onnx; did you mean good.onnx?"),
        ("predict photo.jpg --model fcos-lite9", "'fcos-lite9'; did you mean fcos-lite2?"),
        ("eval runs/min", "there is no folder or file runs/min; did you mean runs/mine?"),
    ):
        code, out, err = fcos(capsys, *line.split())
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.endswith(f"{end.format(models=', '.join(known_models()))}\n"), err


def test_no_verb_shows_the_help(capsys):
    code, out, err = fcos(capsys)
    assert code in (0, 2)
    assert "Commands:" in out + err


def test_files_that_are_something_else(capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    image = tmp_path / "a.jpg"
    image.write_text("x")
    code, _, err = fcos(capsys, "predict", image, "--out", tmp_path / "file")
    assert (code, err) == (2, f"fcos: --out {tmp_path / 'file'} is a file; name a folder\n")
    for verb in (["train", "--data", tmp_path], ["eval", "--data", tmp_path, "--model", "m"], ["demo"]):
        code, _, err = fcos(capsys, *verb, "--out", tmp_path / "file")
        assert (code, err) == (2, f"fcos: --out {tmp_path / 'file'} is a file; name a folder\n")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    code, _, err = fcos(capsys, "info", tmp_path / "other.pth")
    assert code == 2
    assert "fcos convert" in err
    assert err.count("\n") == 1
    own = {f"head.{name}.weight": torch.zeros(1, 1, 3, 3) for name in ("class_logits", "box_distances")}
    save_file(own, tmp_path / "own.safetensors")
    code, _, err = fcos(capsys, "convert", tmp_path / "own.safetensors", tmp_path / "out.safetensors")
    assert code == 2
    assert "already" in err
    assert "--to" in err


def test_devices_that_are_not_there(capsys, tmp_path):
    for name in ("gpu", "cuda:99"):
        code, _, err = fcos(capsys, "predict", __file__, "--device", name, "--out", tmp_path / "o")
        assert code == 2
        assert repr(name) in err
        assert "try --device cpu" in err
        assert len(err) < 200


def test_a_category_id_that_stands_twice_is_named(capsys, tmp_path):
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
        "annotations": [],
        "categories": [{"id": 7, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    (tmp_path / "instances_val.json").write_text(json.dumps(truth))
    code, _, err = fcos(capsys, "doctor", "--data", tmp_path)
    assert code == 2
    assert "category id 7 appears twice" in err


OPENERS = [
    "predict {image} --model {model}",
    "eval {data} --model {model}",
    "eval {data} --compare {model} {model}",
    "explain {image} --model {model}",
    "study nms {data} --model {model}",
    "study figures --model {model}",
    "study ambiguity {data} --model {model}",
    "bench {model}",
    "serve --model {model}",
    "track {video} --model {model}",
]


@pytest.mark.parametrize("line", OPENERS)
def test_code_is_loaded_by_every_verb_alike(line, tmp_path, capsys, monkeypatch):
    """TorchScript is code: no verb loads it unasked, and each does with --trust."""
    pytest.importorskip("fastapi")
    pytest.importorskip("scipy")
    network = torch.jit.script(torch.nn.Identity())
    torch.jit.save(network, str(tmp_path / "m.torchscript"))
    torchscript.describe(tmp_path / "m.torchscript", About(Config(), Classes(("disc", "square"))))
    make_shapes(tmp_path / "data", {"test": 2})
    monkeypatch.chdir(tmp_path)
    shutil.copy(next((tmp_path / "data").rglob("*.png")), "a.png")
    video = cv2.VideoWriter("v.avi", cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    video.write(np.zeros((48, 64, 3), np.uint8))
    video.release()
    loaded = []

    def load(path, **_):
        loaded.append(path)
        raise ValueError("the code was loaded")

    monkeypatch.setattr(torch.jit, "load", load)
    words = line.format(image="a.png", data="data", model="m.torchscript", video="v.avi").split()
    for trust in (False, True):
        code, _, err = fcos(capsys, *words, *(["--trust"] if trust else []))
        said = err.splitlines()[-1]
        assert code == 2, err
        assert ("the code was loaded" if trust else "is TorchScript, which is code") in said
        assert bool(loaded) == trust


def test_an_option_is_understood_by_the_name_it_had(capsys):
    code, out, err = fcos(capsys, "data", "info", "nowhere", "--pictures", "nope")
    assert (code, out, err) == fcos(capsys, "data", "info", "nowhere", "--images", "nope")
    assert err == "fcos: --images nope: there is no such file or folder\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_an_output_that_is_full_is_one_line():
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "fcos", "models"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "fcos: cannot write the output: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="a shell of Unix closes them")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_lead_nowhere(tmp_path, closed):
    """And no file that is opened later has their numbers, in which a library's words would then stand."""
    program = "import os, sys; sys.argv[0] = 'fcos'; from fcos.cli import main\ntry: main(['--version'])\n"
    program += "except SystemExit as end: assert end.code == 0\n"
    program += "file = open('file', 'w'); assert file.fileno() > 2; os.write(1, b'words'); os.write(2, b'words')"
    command = f'"{sys.executable}" -c "$PROGRAM" {closed}'
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, timeout=120, env={**os.environ, "PROGRAM": program}
    )  # fmt: skip
    assert done.returncode == 0
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("name", "swallowed"), [("SIGINT", False), ("SIGINT", True), ("SIGTERM", False), ("SIGHUP", True)]
)
def test_ctrl_c_and_signals_to_end_are_one_line(capsys, monkeypatch, name, swallowed):
    """Also where native code, which was interrupted in the middle, makes another error of it."""
    number = getattr(signal, name, signal.SIGTERM)  # Windows has no SIGHUP

    def interrupted(*_):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if not swallowed:
                raise
        raise ValueError("could not determine the shape of object type 'torch.storage.UntypedStorage'")

    if threading.current_thread() is not threading.main_thread():
        pytest.skip("only the main thread is interrupted")
    importlib.import_module("fcos.zoo.describe")  # which keeps what it finds by that name when it is first imported

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    others = {
        n: signal.signal(n, signal.SIG_DFL) for n in {number, signal.SIGTERM} - {signal.SIGINT}
    }  # as without nohup
    monkeypatch.setattr("fcos.presets.resolve", interrupted)
    try:
        code, out, err = fcos(capsys, "config", "fcos-lite0")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for n, handler in {signal.SIGINT: before, **others}.items():
            signal.signal(n, handler)
    assert (code, out, err) == (128 + number, "", "fcos: stopped\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_an_error_that_cannot_be_told_has_its_exit_code_all_the_same():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "fcos", "models", "nonesuch"], stderr=full, timeout=120)
    assert done.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_report_that_the_disk_does_not_take_ends_nothing(tmp_path):
    """`fcos train ... 2> log` on a full disk learns on; what it says on the way is lost."""
    program = "import sys; sys.argv[0] = 'fcos'; import fcos.cli as cli\n"
    program += "cli.build = lambda: lambda **_: [sys.stderr.write('a line\\n'), 0][1]\n"
    program += "try: cli.main([])\nexcept SystemExit as end: print('code', end.code)"
    command = [sys.executable, "-c", program]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "code 0\n")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("code 0\n", "a line\n")


def test_names_on_standard_input_need_be_no_utf8(tmp_path, capsys, monkeypatch):
    """What the system gives is read as names of files are; the others are detected in."""
    name = os.fsencode(tmp_path) + b"/\xff.png"
    try:
        with open(name, "wb") as file:
            file.write(cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes())
    except OSError:
        pytest.skip("this system takes no such name")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(name + b"\nnope.png\n"), encoding="utf-8"))
    code, out, err = fcos(capsys, "predict", "-", "--json", "--runtime", "torch")
    assert code == 1, err  # nope.png
    assert [Path(json.loads(line)["file"]).name for line in out.splitlines()] == ["\udcff.png"]
    assert "nope.png" in err


@pytest.mark.parametrize("columns", ["0", "1", "4", "no"])
def test_a_terminal_without_width_gets_its_settings_all_the_same(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    code, out, err = fcos(capsys, "config", "fcos-lite0")
    assert (code, err) == (0, "")
    assert "train.lr" in out


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (RuntimeError("can't start new thread"), "ulimit -u"),  # as `threading` says it under ulimit -u
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "ulimit -v"),
    ],
)
def test_what_the_system_refuses_is_one_line(capsys, monkeypatch, error, part):
    def refused(*_, **__):
        raise error

    monkeypatch.setattr("fcos.cli.config.describe", refused, raising=False)
    monkeypatch.setattr("fcos.config.describe", refused)
    code, _, err = fcos(capsys, "config", "fcos-lite0")
    assert (code, err.count("\n"), part in err) == (2, 1, True)


def test_a_warning_of_the_program_itself_is_one_line(capsys, monkeypatch):
    """Not two with the place in its code: an image that a run skips. Nor two where it comes again."""

    real = fcos_package.config.describe

    def warned(config):
        for _ in range(2):
            warnings.warn("skipped: a.jpg", stacklevel=1)
        return real(config)

    code = warned.__code__.replace(co_filename=str(Path(fcos_package.__file__).parent / "training" / "prefetch.py"))
    warned.__code__ = code
    monkeypatch.setattr("fcos.config.describe", warned)
    monkeypatch.setattr("fcos.cli.config.describe", warned, raising=False)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back what the command changes
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _, _, err = fcos(capsys, "config", "fcos-lite0")
    assert err.count("fcos: note: skipped: a.jpg\n") == 1
    assert "prefetch.py" not in err


def test_settings_of_training_are_settings():
    """Those that predict refuses; a name that is gone would let its successor through."""
    assert set(_LEARNING) < set(DataConfig.model_fields)
    used = {"size", "max_size", "tile", "divisor", "resample", "round", "padding", "inclusive_boxes"}
    assert set(DataConfig.model_fields) - set(_LEARNING) == used | {"learned_side", "learned_boxes"}
