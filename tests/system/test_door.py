"""Errors in the words of Python or of a command line."""

import pytest

import fcos
from fcos.cli import main
from fcos.errors import ConfigError, DataError, FcosError
from fcos.system.door import as_python, at_command_line, door, in_python


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--holdout 1.5 is no share; give others with --val", "holdout=1.5 is no share; give others with val="),
        ("say where it is: --data DATA --model runs/a", "say where it is: data=DATA model=runs/a"),
        ("--tta 'flop': write flip", "tta='flop': write flip"),
        ("give --format NAME, coco or yolo", "give format=NAME, coco or yolo"),
        ("leave --tile out, or --count-line", "leave tile= out, or count_line="),
        ("choose one with --split 'train', or its file", "choose one with split='train', or its file"),
        ("try --device cpu", "try device=cpu"),
        ("--device cuda:1 names one", "device=cuda:1 names one"),
        ("or go on with it: --resume", "or go on with it: resume=True"),
        ("--allow-missing judges the others", "allow_missing=True judges the others"),
        ("more --minutes make it better", "more minutes= make it better"),
        ("train it: fcos train --model a, then --model runs/a", "train it: fcos train --model a, then model=runs/a"),
        ("less (docker run --shm-size=2g)", "less (docker run --shm-size=2g)"),
        ("in /work/fcos/out.txt --format is onnx", "in /work/fcos/out.txt format= is onnx"),
        ("a--b, -- and ---x stay", "a--b, -- and ---x stay"),
        ("", ""),
    ],
)  # fmt: skip
def test_options_become_parameters(text, told):
    assert as_python(text) == told


def test_how_a_data_set_is_read_is_told_by_a_data_source():
    line = "add --labels FOLDER, or name it with --images, --split or both"
    assert as_python(line, of_data=True) == (
        "add DataSource(labels=FOLDER), or name it with DataSource(images=...), split= or both"
    )


def test_an_error_is_told_to_whoever_called():
    @door
    def work(kind):
        raise kind("give another --out", ["--out stays"])

    for kind, code in ((FcosError, 2), (DataError, 2)):
        with pytest.raises(kind, match=r"^give another out=$") as told:
            work(kind)
        assert (told.value.code, told.value.details) == (code, "--out stays")
    with at_command_line(), pytest.raises(FcosError, match="give another --out"):
        work(FcosError)
    with pytest.raises(ValueError, match=r"^--out$"), in_python():
        raise ValueError("--out")


def test_python_and_the_command_line_are_told_of_one_fault_in_their_words(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"add DataSource\(labels=FOLDER\)"):
        fcos.open_dataset(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path)])
    assert "add --labels FOLDER" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"add DataSource\(labels=FOLDER\)"):  # the command is over
        fcos.train(tmp_path)
    model = fcos.load("fcos-lite0", device="cpu", runtime="torch")
    with pytest.raises(ConfigError, match=r"^tta='flop': "):
        model("photo.jpg", tta="flop")
    with pytest.raises(ConfigError, match=r"^tta='flop': "):
        list(model.stream([], tta="flop"))
