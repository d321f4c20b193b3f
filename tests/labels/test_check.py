"""`fcos labels check` from the command line to the page, on a set whose every mistake is known."""

import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from scripted import CONFIG, ByColour
from tiny import fcos, make_shapes

import fcos as package
from fcos.data.open import open_dataset, open_splits
from fcos.data.tree import DataSource
from fcos.data.write import convert
from fcos.errors import ConfigError, DataError
from fcos.export.browser import Browser, find_chromium
from fcos.inference.detector import Detector
from fcos.labels.checking import check
from fcos.labels.inject import CLASS, MISSING, spoil
from fcos.labels.page import write_page
from fcos.labels.report import in_words
from fcos.labels.suspicion import Suspect
from fcos.overlap import pairwise_iou
from fcos.types import Classes

needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here: apt install chromium")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(a detector, a set of shapes, the same with known mistakes)"""
    folder = tmp_path_factory.mktemp("labels")
    truth = open_dataset(make_shapes(folder / "shapes", {"train": 90}, seed=2), "train")
    # shapes that touch are one to this network
    grown = [r.boxes + np.array([-2, -2, 2, 2]) for r in truth.records]
    truth = truth.subset([i for i, b in enumerate(grown) if (pairwise_iou(b, b) > 0).sum() == len(b)])
    detector = Detector(ByColour(2), CONFIG, truth.classes)
    spoiled = spoil(truth, 0.05, seed=77)
    wrong = replace(truth, records=tuple(s.record for s in spoiled))
    convert({"train": wrong}, folder / "wrong", "coco")
    return detector, truth, spoiled, folder / "wrong"


@pytest.fixture(scope="module")
def result(world):
    return check(world[3], model=world[0], quiet=True)


def test_known_mistakes_come_first(world, result):
    _, _, spoiled, _ = world
    known = sum(len(s.lost) + sum(map(bool, s.kinds)) for s in spoiled)
    first = result.findings[:known]
    hits = 0
    for finding in first:
        copy = spoiled[finding.image]
        s = finding.suspect
        hits += bool(len(copy.lost)) if s.kind == MISSING else bool(copy.kinds[s.row] or copy.kinds[s.other])
    assert hits >= 0.7 * known
    n, about, low, high = result.promise(known)
    assert n == known
    assert low <= about <= high <= known
    chances = [f.chance for f in result.findings]
    assert chances == sorted(chances, reverse=True)
    rows = [(f.image, f.suspect.row) for f in result.findings if f.suspect.row >= 0]
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize(
    ("seen", "own", "words"),
    [
        (0.8, 0.02, "sees square in this place (0.80) and nothing of disc (0.02)."),
        (0.8, 0.3, "sees square in this place (0.80) and less of disc (0.30)."),
        (0.20, 0.21, "sees square in this place (0.20) and also disc (0.21)."),
        (0.204, 0.201, "sees square in this place (0.20) and also disc (0.20)."),
    ],
)
def test_the_words_fit_the_numbers(seen, own, words, world):
    _, truth, _, _ = world
    suspect = Suspect(CLASS, 0.5, 0, -1, box=(0, 0, 9, 9), label=1, seen=seen, own=own, overlap=1.0)
    assert in_words(suspect, truth, np.array([0]), np.zeros((1, 4)))[0].endswith(words)


def test_the_text_says_how_many_more_there_are(result):
    count = len(result.findings)
    line = f"{count - 3:,} more are not shown here: see them with --out review.html --limit {count} or --json"
    assert line in result.text(first=3).splitlines()
    part = result.text(first=3, page="x.html", limit=count - 1)
    assert f"the first {count - 1:,} of all are in x.html, all with --out x.html --limit {count} or --json" in part
    assert "are not shown here: see them in x.html" in result.text(first=3, page="x.html", limit=count)
    box = " ".join(f"{v:.0f}" for v in result.findings[0].suspect.box)
    assert f"  {box}  " in result.text()  # several suspects of one image are told apart
    assert "1 more is not shown here" in result.text(first=count - 1)
    assert "not shown" not in result.text(first=count)


def test_a_clean_set_is_not_accused(world):
    """No mistake is there: the promise says so, within its interval."""
    detector, truth, _, _ = world
    clean = check(truth, model=detector, quiet=True)
    _, about, low, _ = clean.promise(50)
    assert low == 0
    assert about <= 2


def test_a_blind_judge_is_not_believed(world):
    _, truth, _, _ = world
    blind = Detector(ByColour(2), CONFIG, truth.classes)
    blind.network.colours = ((1, 2, 3), (3, 2, 1))
    told = check(truth, model=blind, quiet=True)
    assert told.seen < 0.1
    assert "do not trust this list" in told.text()
    assert "do not trust this list" not in check(truth, model=world[0], quiet=True).text()


def test_a_guess_is_not_shown_as_measured(world):
    """Twelve copies of a few boxes show the same few errors: too few for an estimate, whatever number comes out."""
    detector, truth, _, _ = world
    numbers = [i for i, r in enumerate(truth.records) if len(r.boxes)][:10]
    few = truth.subset(numbers)
    assert sum(len(r.boxes) for r in few.records) < 20
    told = check(few, model=detector, quiet=True)
    assert not told.rates
    rows = [line for line in told.text().splitlines() if line.startswith(("missing box", "wrong class"))]
    assert rows
    assert all(line.split()[3] == "-" for line in rows)
    assert set(told.to_dict()["rates"].values()) == {None}
    planted = next(line for line in told.assumes() if "planted" in line)
    counts = {kind: int(number) for kind, number in re.findall(r"(missing box|wrong class) (\d+)", planted)}
    assert counts == {"missing box": told.planted["missing"], "wrong class": told.planted["class"]}
    assert counts["missing box"] == 12  # one in each copy
    assert "guesses" in planted


def test_the_planted_errors_are_counted(world, result):
    _, _, _, folder = world
    number = max(round(0.05 * sum(len(r.boxes) for r in result.data.records)), 4)
    assert result.planted["missing"] == 12 * number
    assert f"missing box {12 * number}" in " ".join(result.assumes())
    # no shape has two boxes, and of fewer than five such pairs nothing can be learned
    assert [kind for kind, curve in result.curves.items() if not curve.measured] == ["duplicate"]
    assert "too few for two boxes for one object: these chances are guesses" in " ".join(result.assumes())
    assert folder.name in result.text()


def test_classes_that_the_model_lacks_are_named_and_left_out(world, tmp_path):
    """A teapot beside each shape: no error of theirs is planted, and the rest is judged as without them."""
    detector, truth, _, _ = world
    teapots = Classes((*truth.classes.names, "teapot"), ())
    records = []
    for r in truth.records:
        more = np.array([[1, 1, 20, 20]], np.float32)
        records.append(
            replace(
                r,
                boxes=np.concatenate([r.boxes, more]),
                labels=np.append(r.labels, 2),
                ignore=np.append(r.ignore, False),
                areas=np.append(r.areas, 361.0),
                xywh=None,
            )
        )
    told = check(replace(truth, records=tuple(records), classes=teapots), model=detector, quiet=True)
    assert told.unknown == {"teapot": len(truth)}
    assert f"not checked: teapot ({len(truth)} boxes): the model does not know it" in told.text()
    alone = check(truth, model=detector, quiet=True)
    assert alone.unknown == {}
    assert "not checked" not in alone.text()
    for kind in ("missing", "class", "shifted", "spurious"):
        assert told.planted[kind] == pytest.approx(alone.planted[kind], abs=12)
        assert told.curves[kind].found == pytest.approx(alone.curves[kind].found, abs=0.1)
    for copy in spoil(
        replace(truth, records=tuple(records), classes=teapots), 0.3, known=np.array([True, True, False])
    ):
        assert sum(copy.record.labels == 2) == 1
        assert 2 not in copy.lost_labels
    only = replace(truth.records[0], boxes=more, labels=np.array([2]), ignore=np.zeros(1, bool), areas=np.ones(1))
    with pytest.raises(DataError, match="no boxes of a class that the model knows"):
        check(replace(truth, records=(only,), classes=teapots), model=detector, quiet=True)


def test_images_that_cannot_be_read(world, tmp_path, capsys):
    detector, truth, _, _ = world
    (tmp_path / "bad.png").write_text("no image")
    bad = [replace(r, path=tmp_path / "bad.png") for r in truth.records[:3]]
    with pytest.raises(DataError, match=r"none of the 3 images can be read: .*bad\.png"):
        check(replace(truth, records=tuple(bad)), model=detector, quiet=True)
    told = check(replace(truth, records=(*truth.records, bad[0])), model=detector, quiet=True)
    assert len(told.unread) == 1
    assert "not read: " in told.text()


def test_the_python_door(world):
    assert package.labels.check is check
    with pytest.raises(AttributeError, match="no attribute 'chek'"):
        package.labels.chek  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "give the data set to check"),
        (("nowhere",), "there is no file or folder nowhere"),
        (("DATA", "--model", "fcos-lite0", "--out", "page.pdf"), "the page is one HTML file"),
        (("DATA", "--model", "fcos-lite0", "--split", "tset"), "no split 'tset'"),
        (("DATA", "--model", "fcos-lite0"), "disc"),  # no class of the model is in the data
    ],
)
def test_bad_input_is_one_line(capsys, world, arguments, line):
    code, _, told = fcos(capsys, "labels", "check", *(world[3] if a == "DATA" else a for a in arguments))
    assert code == 2
    assert line in told
    assert told.count("\n") == 1


def test_a_run_that_has_learned_from_the_data_is_named(world, tmp_path, capsys):
    from fcos.labels.checking import _warn_of_learned, open_all

    data = make_shapes(tmp_path / "shapes", {"train": 4, "val": 2}, seed=5)
    sources = dict.fromkeys(("val", "split", "held_out", "format", "images", "labels"))
    for folder, learned, split, warned in (
        ("a", data, None, "from 4 images of these"),
        ("a", data, "train", "give images that it has not seen"),
        ("a", data, "val", ""),
        ("b", tmp_path / "other", None, ""),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        told = {"sources": {**sources, "data": str(learned)}}
        (tmp_path / folder / "environment.json").write_text(json.dumps(told))
        _warn_of_learned(tmp_path / folder, *open_all(data, split))
        err = capsys.readouterr().err
        assert warned in err
        assert bool(err) is bool(warned)
    _warn_of_learned("fcos-lite0", *open_all(data))
    assert capsys.readouterr().err == ""


def test_the_decisions_know_how_the_data_was_read(world, tmp_path, capsys):
    """Splits in files of their own, images elsewhere, a box that cannot be used: the copy has all the rest."""
    data = make_shapes(tmp_path / "shapes", {"train": 12, "val": 4}, seed=5)
    (data / "images").rename(tmp_path / "elsewhere")
    file = data / "instances_val.json"
    told = json.loads(file.read_text())
    told["annotations"].append({**told["annotations"][0], "id": 900, "bbox": [5, 5, 0, 9]})
    file.write_text(json.dumps(told))
    source = DataSource(data, "coco", tmp_path / "elsewhere")
    result = check(source, model=world[0], quiet=True)
    assert result.to_dict()["data"] == str(data)
    page = write_page(tmp_path / "review.html", result).read_text()
    shown = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert shown["title"].startswith("shapes:")
    decisions = {"fcos": "label decisions", "version": 1, **shown["source"], "decisions": []}
    (tmp_path / "decisions.json").write_text(json.dumps(decisions))
    code, out, err = fcos(capsys, "labels", "apply", tmp_path / "decisions.json", "--out", tmp_path / "copy")
    assert (code, err) == (0, "")
    assert "val: skipped: boxes without an area, or with corners exchanged (1; first:" in out
    before, after = open_splits(source), open_splits(tmp_path / "copy")
    assert list(after) == ["train", "val"]
    for split, part in after.items():
        assert [len(r.boxes) for r in part.records] == [len(r.boxes) for r in before[split].records]
        assert all(r.path is not None for r in part.records)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"split": "val"}, "split is of a path"),
        ({"folds": 3}, "folds and minutes are of models that are trained here"),
        ({"minutes": 5}, "folds and minutes are of models that are trained here"),
        ({"minutes": -3, "model": None}, "minutes=-3: give 0.1 or more"),
    ],
)
def test_options_without_effect_are_refused(world, options, told):
    with pytest.raises(ConfigError, match=told):
        check(world[1], quiet=True, **{"model": world[0]} | options)


def press(tab, keys):
    for key in keys:
        tab.evaluate(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}})), 0")


@pytest.mark.browser
@needs_chromium
def test_a_review_by_keys(result, tmp_path):
    """Decide, undo, save, load; nothing is asked for from elsewhere."""
    page = write_page(tmp_path / "review.html", result)
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "")
    with Browser() as browser:
        tab = browser.open(page.as_uri())
        assert tab.evaluate("review.promise()") == result.sentence(min(50, len(result.findings)))
        press(tab, ["f", "r", "a"])
        assert tab.evaluate("document.getElementById('count').textContent").startswith("3 of")
        assert "You judged 3, 2 wrong" in tab.evaluate("document.getElementById('promise').textContent")
        press(tab, ["u"])
        told = tab.evaluate("review.decisions()")
        assert [d["action"] for d in told["decisions"]] == ["fix", "reject"]
        source = result.source
        assert [told[k] for k in ("data", "format", "images", "labels")] == [str(source.path), None, None, None]
        first = result.findings[0]
        assert (told["decisions"][0]["kind"], told["decisions"][0]["file"]) == (first.suspect.kind, first.file)
        press(tab, ["ArrowRight", "ArrowLeft", "z"])
        assert tab.evaluate("review.state.whole") is True
        tab.evaluate("document.getElementById('save').click(), 0")
        assert "2 decisions saved" in tab.evaluate("document.getElementById('say').textContent")
        # another browser, the file loaded: the decisions are back
        saved = tmp_path / "decisions.json"
        saved.write_text(json.dumps(told))
        asked = {url for url in browser.requests if not url.startswith(("data:", "blob:", "about:"))}
        assert asked == {page.as_uri()}
    with Browser() as browser:
        tab = browser.open(page.as_uri())
        assert tab.evaluate("review.state.decisions.size") == 0
        tab.give_files("#file", [saved])
        end = time.monotonic() + 30
        while tab.evaluate("review.state.decisions.size") != 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        tab.evaluate("review.take('{}'), 0")
        assert "no label decisions" in tab.evaluate("document.getElementById('say').textContent")
        tab.resize(390, 844, phone=True)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth") is True


@pytest.mark.browser
@needs_chromium
def test_a_kind_without_suspects_says_nothing_of_the_one_before(result, tmp_path):
    page = write_page(tmp_path / "review.html", result)
    words = "['place', 'why', 'chance', 'fix-text'].map((id) => document.getElementById(id).textContent)"
    off = "[...document.querySelectorAll('button:disabled')].map((b) => b.id)"
    with Browser() as browser:
        tab = browser.open(page.as_uri())
        before = tab.evaluate(words)
        assert all(before)
        tab.evaluate("(review.state.kind = 'no such kind', review.refresh(), 0)")
        assert tab.evaluate(words) == [""] * 4
        assert set(tab.evaluate(off)) == {"fix", "accept", "reject", "zoom", "back", "on"}
        assert tab.evaluate("document.getElementById('chance').offsetParent === null") is True
        tab.evaluate("(review.state.kind = '', review.refresh(), 0)")
        assert (tab.evaluate(words), tab.evaluate(off)) == (before, [])


def test_the_page_survives_odd_names(result, tmp_path):
    """A class or file called </script> stays text."""
    names = ("</script><b>", '"disc')
    odd = replace(result.data, classes=replace(result.data.classes, names=names))
    page = write_page(tmp_path / "odd.html", replace(result, data=odd)).read_text()
    data = page.split('id="data">')[1].split("</script>")[0]
    assert any(s["given_text"] in names for s in json.loads(data)["suspects"])
