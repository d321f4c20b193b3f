"""Words and bars: one progress bar, one "did you mean", one reader of sizes, one rounding up to the divisor."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import fcos
from fcos.errors import ConfigError, did_you_mean, or_near
from fcos.points import padded
from fcos.system import progress
from fcos.system.progress import Bar, track
from fcos.system.terminal import data_name, json_ready, parse_shape, plural


@pytest.fixture
def often(monkeypatch):
    """A plain line after every step, and a clock that moves one second each time it is read."""
    seconds = itertools.count()
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(seconds)))


def test_without_a_terminal_a_bar_is_lines_on_stderr(often, capsys):
    assert list(track(["a", "b", "c"], 3, "reading", unit="images")) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["reading 1/3", "reading 2/3", "reading 3/3"]
    assert all("images/s" in line and line.endswith("left") for line in lines)


def test_a_quiet_bar_says_nothing(often, capsys):
    with Bar("reading", 2, quiet=True) as bar:
        bar.advance()
        bar.write("a line")
    assert capsys.readouterr() == ("", "")


def test_a_short_job_without_a_terminal_says_nothing(capsys):
    assert sum(1 for _ in track(range(50), 50, "counting")) == 50
    assert capsys.readouterr() == ("", "")


def test_rate_and_time_left_by_hand(monkeypatch):
    """100 of 400 were there before; 60 more in 30 seconds, 20 of which were a pause: 6 a second, 240 left take 40."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    bar = Bar("step", 400, done=100)
    now[0] = 4.0
    with bar.pause():
        now[0] = 24.0
    now[0] = 30.0
    bar.update(160, info="loss 1.0")
    assert bar.rate() == 6.0
    assert bar.text() == "160/400  loss 1.0  0:40 left"
    for seconds, told in ((15.0, "0:15"), (90.0, "0:40"), (-3.0, "0:00")):  # a clock ends it first, or does not
        bar.most = lambda seconds=seconds: seconds
        assert bar.text() == f"160/400  loss 1.0  {told} left"


def test_bytes_are_shown_as_megabytes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    bar = Bar("file", unit="B")
    bar.update(1_000_000)  # a transfer taken up again
    now[0] = 2.0
    bar.update(5_000_000, 25_000_000)
    assert bar.text() == "5.0 of 25.0 MB  2.0 MB/s  0:10 left"


@pytest.mark.parametrize(
    ("text", "shape"), [("64", (64, 64)), ("800x1066", (800, 1066)), (" 32x33 ", (32, 33)), ("064", (64, 64))]
)
def test_sizes(text, shape):
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "x", "64x", "x64", "31", "64x16", "-64", "64.0", "64X64x3", "1e3", "٣٢٠x٣٢٠x"])
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match="write HxW in pixels, 32 at least"):
        parse_shape(text)


def test_padded_is_the_smallest_multiple_that_holds_it():
    for height, width, divisor in itertools.product((1, 31, 32, 33, 800), (7, 64, 65), (1, 7, 32, 64)):
        multiples = [n * divisor for n in range(1, 1000)]
        expected = tuple(next(m for m in multiples if m >= side) for side in (height, width))
        assert padded((height, width), divisor) == expected


def test_or_near(tmp_path):
    for name in ("runs/mine", "runs/yours", "Photo.jpg"):
        (tmp_path / name).mkdir(parents=True)
    for given, near in (
        ("run/mine", "runs/mine"),
        ("rnus/mien", "runs/mine"),
        ("photo.jpeg", "Photo.jpg"),
        ("x.jpg", None),  # a suffix alone makes no two names near
        ("run/zzz", None),  # nothing there is near
        ("runs/mine/best.safetensors", None),
        ("runs/mine", None),  # it is there
        ("x" * 5000, None),
        ("a\0b", None),
    ):
        assert or_near(tmp_path / given) == (f"; did you mean {tmp_path / near}?" if near else ""), given


def test_did_you_mean():
    assert did_you_mean("fcos-lite9", ["fcos-lite0", "retina"], "none") == "did you mean fcos-lite0?"
    assert did_you_mean("zzz", ["fcos-lite0"], "there is fcos-lite0") == "there is fcos-lite0"
    assert did_you_mean("abcd", ["abce", "abcf"], "none", 2) in (
        "did you mean abce or abcf?",
        "did you mean abcf or abce?",
    )


@pytest.mark.parametrize(
    ("word", "home"),
    [("rich.progress", "system/progress.py"), ("difflib", "errors.py"), ("XDG_CACHE_HOME", "system/machine.py")],
)
def test_one_mechanism(word, home):
    package = Path(fcos.__file__).parent
    users = sorted(str(p.relative_to(package)) for p in package.rglob("*.py") if word in p.read_text())
    assert users == [str(Path(home))]


def test_plain():
    given = {"a": np.float32(0.5), 2: [np.nan, np.array([1, 2])], "c": (np.int64(3), None)}
    assert json_ready(given) == {"a": 0.5, "2": [None, [1, 2]], "c": [3, None]}


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [(1, "class", "1 class"), (20, "class", "20 classes"), (5, "epoch", "5 epochs"), (2, "batch", "2 batches"),
     (0, "query", "0 queries"), (1234, "box", "1,234 boxes"), (2, "day", "2 days")],
)  # fmt: skip
def test_plurals_are_english(count, noun, words):
    assert plural(count, noun) == words


def test_a_data_set_is_called_by_its_folder(tmp_path, monkeypatch):
    """With a dot in it too, and where it is the folder that one stands in."""
    (tmp_path / "coco.v2").mkdir()
    (tmp_path / "coco.v2" / "train.json").touch()
    monkeypatch.chdir(tmp_path / "coco.v2")
    for root in (tmp_path / "coco.v2", tmp_path / "coco.v2" / "train.json", ".", "train.json", "/gone/coco.v2/a.json"):
        assert data_name(str(root)) == "coco.v2"
    assert data_name("data/shapes") == "shapes"
