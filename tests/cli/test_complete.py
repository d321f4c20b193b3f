"""TAB, through the environment variables that the scripts of the shells set."""

import os
import subprocess
import sys

import pytest
from tiny import fcos

from fcos.cli import complete
from fcos.cli.help import documentation
from fcos.config import Config, describe
from fcos.data.registry import NAMES
from fcos.export.about import DTYPES
from fcos.export.registry import FORMATS
from fcos.inference.load import RUNTIMES
from fcos.presets import DIALECTS, PRESETS, preset
from fcos.zoo.models import known_models


@pytest.fixture
def tab(capsys, monkeypatch, tmp_path):
    """What a shell is told for a command line; the last word is the one to complete."""
    monkeypatch.chdir(tmp_path)
    for folder in ("mydata", "runs", "fcos-demo"):
        (tmp_path / folder).mkdir()
    for file in ("a.jpg", "two words.jpg", ".hidden"):
        (tmp_path / file).touch()

    def words_for(line, shell="bash"):
        monkeypatch.setenv("_FCOS_COMPLETE", f"complete_{shell}")
        if shell == "bash":  # which takes "=" for a word of its own
            words = ["fcos", *line.replace("=", " = ").split()]
            monkeypatch.setenv("COMP_WORDS", "\n".join(words))
            monkeypatch.setenv("COMP_CWORD", str(len(words) - (not line.endswith(" "))))
        else:
            monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"fcos {line}")
        code, out, err = fcos(capsys)
        assert (code, err) == (0, "")
        return out.splitlines() if shell != "bash" else out.split()

    return words_for


MODELS = list(known_models())
FILES = ["a.jpg", "fcos-demo/", "mydata/", "runs/"]  # without the one that a shell would have to quote


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("eval --model ", [*MODELS, *FILES]),
        ("eval --model torchv", ["torchvision/fcos-r50-coco"]),
        ("eval --model fcos-", [*MODELS[:-1], "fcos-demo/"]),
        ("eval --model ru", []),  # the shell completes the folder, and writes no blank behind it
        ("eval --compare a fcos-lite", ["fcos-lite0", "fcos-lite1", "fcos-lite2"]),
        ("train --model fcos-", [name for name in PRESETS if name.startswith("fcos-")]),
        ("train --init n", ["none"]),
        ("export --format h", ["html"]),
        ("data info D --format vo", ["voc"]),
        ("train D --dialect ", list(DIALECTS)),
        ("eval D --runtime o", ["onnx", "openvino"]),
        ("eval D --dtype b", ["bf16"]),
        ("eval D --split t", ["train", "test"]),
        ("train D --split train,", ["train,val", "train,test"]),
        ("study n", ["nms"]),
        ("help tra", ["training"] if (documentation() / "training.md").is_file() else []),
        ("models download fcos-lite0", ["fcos-lite0"]),
        ("train ", []),
        ("train my", []),
        ("predict a.jpg ", []),
        ("train D ", []),
        ("train D tr", [key + "=" for key, _, _ in describe(Config()) if key.startswith("train.")]),
        ("train D d", [f"{section}." for section in ("decode", "data")]),
        (
            "train D train.l",
            [
                "train.lanes=",
                "train.lr=",
                "train.layer_decay=",
                "train.linear_probe=",
                "train.log_every=",
                "train.logger=",
            ],
        ),
        (
            "train D train.lr",
            ["train.lr=", f"train.lr={preset('fcos-lite0').train.lr}"],
        ),  # two, so that the shell writes no blank behind "="
        ("train D --model fcos-r50 train.lr", ["train.lr=", f"train.lr={preset('fcos-r50').train.lr}"]),
        ("train D train.milest", ["train.milestones=", "train.milestones=VALUE"]),
        ("train D train.opt", ["train.optimizer=sgd", "train.optimizer=adamw"]),
        ("train D train.optimizer=", ["sgd", "adamw"]),
        ("train D train.optimizer=a", ["adamw"]),  # and not a.jpg
        ("train D train.compile=", ["true", "false"]),
        ("train D train.channels_last=", ["true", "false", "auto"]),
        ("train D train.lr=", []),
        ("train D train.nothing=", []),
        ("train D --set train.optimizer=s", ["sgd"]),
        ("config loss.box_", ["loss.box_weights=", "loss.box_weight="]),
        ("export mo", [key + "=" for key, _, _ in describe(Config()) if key.startswith("model.")]),
        ("export ", [*MODELS, *FILES]),
    ],
)
def test_bash(tab, line, offered):
    assert tab(line) == offered


def test_zsh(tab):
    """It keeps a word with "=" whole; without an offer it is told to complete files."""
    assert tab("train D train.optimizer=", "zsh") == [
        '_arguments \'*: :(("train.optimizer=sgd"',
        '"train.optimizer=adamw"))\'',
    ]
    assert tab("export --format h", "zsh") == ["_arguments '*: :((\"html\"))'"]
    for line in ("train ", "train my", "eval --model ru", "predict a.jpg "):
        assert tab(line, "zsh") == ["_files"]


def test_the_words_are_those_that_the_program_takes():
    assert {*complete.RUNTIMES, "own"} == set(RUNTIMES)
    assert complete.DTYPES == DTYPES
    assert tuple(FORMATS) == complete.EXPORTS
    assert complete.FORMATS == NAMES


def test_tab_waits_for_nothing_heavy():
    code = (
        "import sys; from fcos.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'cv2', 'timm', 'matplotlib', 'PIL'} & set(sys.modules)"
    )
    for line in ("fcos eval --model f", "fcos train D train.l", "fcos help t"):
        words = {"COMP_WORDS": line.replace(" ", "\n"), "COMP_CWORD": str(line.count(" "))}
        environment = {**os.environ, **words, "_FCOS_COMPLETE": "complete_bash"}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert ran.stdout.split()
