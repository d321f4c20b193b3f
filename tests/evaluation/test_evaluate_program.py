"""`fcos.evaluate`: a model or detections, a path or a data set, the same numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import NAMES, fcos, make_shapes, tiny_config

from fcos import compare, evaluate, open_dataset
from fcos.detections import Detections
from fcos.errors import ConfigError, DataError, FcosError, ModelError
from fcos.evaluation.program import cut_note
from fcos.inference.composite import Looks, compose
from fcos.inference.dataset import predict_dataset
from fcos.inference.load import load
from fcos.network import weights
from fcos.types import Classes


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    torch.manual_seed(3)
    config = tiny_config()
    network = weights.build(config, 2)
    torch.nn.init.constant_(network.head.class_logits.bias, 0.0)  # it fires everywhere
    weights.save(folder / "model.safetensors", network.state_dict(), config, Classes(NAMES, (2, 7)))
    make_shapes(folder / "shapes", {"train": 3, "test": 4})
    return folder


def test_every_way_gives_the_same_numbers(work, capsys):
    model, data = load(work / "model.safetensors", device="cpu"), open_dataset(work / "shapes", "test")
    expected = evaluate(predict_dataset(model, data), data)
    assert expected.images == 4
    assert expected.ap50 > 0
    assert "4 images of test, " in str(expected)
    for one in (model, work / "model.safetensors", str(work / "model.safetensors")):
        for where in (data, work / "shapes", str(work / "shapes")):
            assert evaluate(one, where).numbers() == pytest.approx(expected.numbers(), abs=0, rel=0, nan_ok=True)
    assert evaluate(model, work / "shapes", split="train").images == 3
    assert [row.name for row in evaluate(model, data, class_agnostic=True).classes] == ["object"]
    code, out, err = fcos(capsys, "eval", work / "shapes", "--model", work / "model.safetensors", "--json")
    assert code == 0, err
    assert json.loads(out)["AP50"] == expected.ap50


def test_a_results_file_is_judged_as_detections_are(work, capsys, tmp_path):
    words = ("predict", work / "shapes" / "images" / "test", "--model", work / "model.safetensors", "--score", "0")
    code, _, err = fcos(capsys, *words, "--coco", tmp_path / "r.json", "--data", work / "shapes")
    assert code == 0, err
    expected = evaluate(work / "model.safetensors", work / "shapes", split="test")
    assert evaluate(tmp_path / "r.json", work / "shapes", split="test").ap == pytest.approx(expected.ap, abs=1e-6)
    with pytest.raises(ConfigError, match="give the data set that it is judged by"):
        evaluate(tmp_path / "r.json")


def test_plots_without_classes_are_of_the_numbers_without_classes(work, capsys, tmp_path, monkeypatch):
    from fcos.show import plots

    drawn = []
    real = plots.confusion_matrix
    monkeypatch.setattr(plots, "confusion_matrix", lambda *a, **k: (drawn.append((a, k)), real(*a, **k)))
    words = ("eval", work / "shapes", "--model", work / "model.safetensors", "--class-agnostic", "--out", tmp_path)
    code, out, err = fcos(capsys, *words, "--json")
    assert code == 0, err
    ((matrix, names, _, cut), _) = drawn[0]
    assert (names, matrix.shape) == (("object",), (2, 2))
    assert cut.score == json.loads(out)["best_F1_score"] == json.loads(out)["at_score"]["score"]
    rows = json.loads((tmp_path / "detections.json").read_text())
    assert {row["category_id"] for row in rows} == set(open_dataset(work / "shapes", "test").classes.ids)


def test_a_model_of_inclusive_boxes_is_judged_and_writes_as_the_file_counts(work, capsys, tmp_path):
    """For the original dialect x2 is the last pixel inside; what comes out is x2 - x1 wide all the same, wherever."""
    from fcos.analysis.explain import explain
    from fcos.analysis.misses import miss_study
    from fcos.study.cached import cache, redecode_all

    state, config, classes = weights.read(work / "model.safetensors")[0], tiny_config(), Classes(NAMES, (2, 7))
    config = config.override({"data": {"inclusive_boxes": True}})
    file = weights.save(tmp_path / "inclusive.safetensors", state, config, classes)
    model, data = load(file, device="cpu"), open_dataset(work / "shapes", "test")
    photo = str(data.records[0].path)
    plain = load(work / "model.safetensors", device="cpu")(photo, score=0.0)
    found = model(photo, score=0.0)
    ends = torch.tensor([80.0, 64, 80, 64])  # of the image, which no box leaves
    torch.testing.assert_close(found.boxes, (plain.boxes + torch.tensor([0.0, 0, 1, 1])).minimum(ends))
    assert found.to_coco()[0]["bbox"][2] == pytest.approx(float(found.boxes[0, 2] - found.boxes[0, 0]))
    for same in (
        predict_dataset(model, data)[0],
        redecode_all(cache(model, data), model.config)[0],
        miss_study(model, data).detections[0],
        explain(model, photo, score=0.0).detections,
    ):
        torch.testing.assert_close(same.boxes.minimum(ends), found.boxes)
    images = sorted({r.path.parent for r in data.records})
    words = ("--model", file, "--score", "0", "--coco", tmp_path / "results.json", "--data", work / "shapes")
    code, _, err = fcos(capsys, "predict", *images, *words)
    assert code == 0, err
    numbers = []
    for words in (("--model", file), ("--detections", tmp_path / "results.json")):
        code, out, err = fcos(capsys, "eval", work / "shapes", *words, "--json")
        assert code == 0, err
        numbers.append(json.loads(out)["AP"])
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)


def test_what_cannot_be_judged_is_one_line(work):
    with pytest.raises(FcosError, match="nowhere"):
        evaluate("nowhere", work / "shapes")
    with pytest.raises(DataError, match="gone"):
        evaluate(work / "model.safetensors", work / "gone")
    with pytest.raises(ModelError):
        evaluate(work / "gone.safetensors", work / "shapes")


def test_a_config_and_a_data_set_are_one_line(work):
    data = open_dataset(work / "shapes", "test")
    config = load(work / "model.safetensors", device="cpu").config
    for thing, words in ((data, ["test", "4 images", "2 classes", "coco"]), (config, ["tiny", "64 px"])):
        for text in (repr(thing), str(thing)):
            assert "\n" not in text
            assert len(text) < 200
            assert all(word in text for word in words)


def test_what_learned_from_tiles_is_judged_through_tiles_unless_told_otherwise(work, capsys):
    """As in training. The number is in the file; the network is the one that learned from whole images."""
    detector = load(work / "model.safetensors", device="cpu")
    config = detector.config.override({"data": {"tile": 48}})
    file = work / "tiled.safetensors"
    weights.save(file, weights.read(work / "model.safetensors")[0], config, detector.classes)
    data = open_dataset(work / "shapes", "test")
    whole, tiles = evaluate(detector, data), evaluate(compose([detector], Looks(tile=48)), data)
    assert whole.numbers() != tiles.numbers()
    for options, expected, tile, noted in (
        ((), tiles, 48, True),
        (("--tile", "48"), tiles, 48, False),
        (("--tile", "none"), whole, None, False),
        (("--tile", "0"), whole, None, False),
    ):
        code, out, err = fcos(capsys, "eval", work / "shapes", "--model", file, "--json", *options)
        assert code == 0, err
        told = json.loads(out)
        assert told["AP"] == pytest.approx(expected.ap, abs=1e-9)
        assert told.get("tile") == tile
        assert ("learned from tiles of 48 pixels" in err) == noted


def test_where_one_file_cannot_be_written_all_others_stay_as_they_were(work, capsys, tmp_path):
    """A full disk does that; here a folder has the name of the last file."""
    last = "scores.json"
    options = ("--model", work / "model.safetensors", "--out", tmp_path, "--precision", "0.5")
    (tmp_path / last).mkdir()
    (tmp_path / "metrics.json").write_text("old")
    code, _, err = fcos(capsys, "eval", work / "shapes", *options)
    assert (code, last in err.splitlines()[-1]) == (2, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["metrics.json", last])
    assert (tmp_path / "metrics.json").read_text() == "old"
    (tmp_path / last).rmdir()
    assert fcos(capsys, "eval", work / "shapes", *options)[0] == 0
    assert (tmp_path / last).is_file()
    assert (tmp_path / "metrics.json").read_text() != "old"


def test_detections_of_a_list_are_judged_by_the_names_of_their_classes(work):
    """A model numbers its classes as it likes; labels mean what their names say."""
    data = open_dataset(work / "shapes", "test")
    model = load(work / "model.safetensors", device="cpu")
    raw = [model(r.path, score=0) for r in data.records]
    assert evaluate(raw, data).numbers() == pytest.approx(evaluate(model, data).numbers(), nan_ok=True)
    turned = [replace(d, labels=1 - d.labels, names=NAMES[::-1]) for d in raw]
    assert evaluate(turned, data).numbers() == pytest.approx(evaluate(raw, data).numbers(), nan_ok=True)
    agnostic = [replace(d, names=("object",), labels=torch.zeros_like(d.labels)) for d in raw]
    assert evaluate(agnostic, data, class_agnostic=True).ap50 > 0
    for wrong, words in (
        (raw[:-1], "detections of 3 images, and 4 to judge by"),
        (raw[::-1], "in the order of the data"),
        ([replace(d, names=(), labels=d.labels + 5, source=None) for d in raw], "beyond the 2 classes"),
        ([1, 2, 3, 4], "holds Detections"),
        ([{"image_id": 1}] * 9, "one for each image, not dict; rows of COCO's results go into a .json file"),
    ):
        with pytest.raises(DataError, match=words):
            evaluate(wrong, data)


def test_the_names_of_a_list_are_those_of_all_its_images_together(capsys):
    """Each image may name only what was found in it, in any order."""
    from judging import dataset, record

    from fcos import Detections

    first, second = [10.0, 10, 50, 50], [60.0, 60, 90, 90]
    data = dataset(record(1, [first], [0]), record(2, [second], [1]), record(3, [first, second], [0, 1]))
    a, b = data.classes.names
    none = Detections([], [], [])
    given = [Detections([first], [1], [a]), Detections([second], [1], [b]), Detections([second, first], [1, 1], [b, a])]
    assert evaluate(given, data).ap == pytest.approx(1)
    assert evaluate([none, *given[1:]], data).ap == pytest.approx((0.5 + 1) / 2, abs=0.01)  # one of two, and all
    assert capsys.readouterr().err == ""
    assert evaluate([given[0], none, given[0]], data).ap == pytest.approx(0.5)  # the other class was not found
    knows = [
        replace(seen, names=(a, "cup"), labels=torch.zeros(len(seen), dtype=torch.int64))
        for seen in (given[0], none, given[0])
    ]
    with pytest.raises(DataError, match=f"does not know 1 of the data's 2 classes: '{b}'.*allow_missing=True"):
        evaluate(knows, data)
    assert evaluate(knows, data, allow_missing=True).ap == pytest.approx(0.5)
    odd = [*given[:2], Detections([second, first], [1, 1], ["Rbcs", a])]
    assert evaluate(odd, data).ap == pytest.approx((1 + 0.5) / 2, abs=0.01)
    assert "1 detection of classes that the data does not have, left out: 'Rbcs'" in capsys.readouterr().err
    assert compare(given, odd, data, resamples=10).difference["AP"].value == pytest.approx(-0.25, abs=0.01)


def test_a_run_of_a_dataset_in_memory_knows_what_it_learned_from(tmp_path):
    from fcos.evaluation.program import learned_note

    whole = open_dataset(make_shapes(tmp_path / "shapes", {"train": 8}), "train")
    rows = [
        {"image": r.path, "boxes": r.boxes, "labels": [whole.classes.names[k] for k in r.labels]} for r in whole.records
    ]
    data = open_dataset(rows)
    held = [data.records[2].file_name]
    for told, judged, words in (
        ({"held_out": held}, data, "learned from 7 of the 8 images"),
        ({"held_out": held, "root": str(data.root.resolve())}, data, "learned from 7 of the 8 images"),
        ({"held_out": held, "root": str(tmp_path)}, data, ""),  # other images of these names
        ({"held_out": held}, data.subset([2]), ""),  # which were kept for judging
        ({"held_out": ["other.jpg"]}, data, ""),
        ({"held_out": None}, data, ""),
    ):
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        (run / "environment.json").write_text(json.dumps({"sources": {"data": None, **told}}))
        note = learned_note(run, judged)
        assert words in note
        assert bool(note) is bool(words)


def test_options_that_mean_nothing_are_named(work):
    data = open_dataset(work / "shapes", "test")
    for batch in (0, -1, "8", 2.5, True):
        with pytest.raises(ConfigError, match=f"batch={batch!r}: give a whole number, 1 or more"):
            evaluate(work / "model.safetensors", data, batch=batch)
    with pytest.raises(ConfigError, match="seed='a'"):
        compare(work / "model.safetensors", work / "model.safetensors", data, seed="a")
    with pytest.raises(ConfigError, match="did you mean split"):
        evaluate(work / "model.safetensors", data, spilt="train")
    with pytest.raises(ConfigError, match="one split already"):
        evaluate(work / "model.safetensors", data, split="train")


def test_two_models_are_compared_as_the_command_does(work, capsys, tmp_path):
    state, config, classes = weights.read(work / "model.safetensors")[:3]
    torch.manual_seed(4)
    state = {k: v + 0.05 * torch.randn_like(v) if v.is_floating_point() else v for k, v in state.items()}
    weights.save(tmp_path / "other.safetensors", state, config, classes)
    names = (work / "model.safetensors", tmp_path / "other.safetensors")
    words = ("--compare", *names, "--split", "test", "--resamples", 50, "--json")
    code, out, err = fcos(capsys, "eval", work / "shapes", *words)
    assert code == 0, err
    told = json.loads(out)
    judged = compare(*names, work / "shapes", split="test", resamples=50)
    for key in ("first", "second", "difference", "p", "images", "resamples", "seed"):
        assert judged.to_dict()[key] == told[key], key
    data = open_dataset(work / "shapes", "test")
    first, second = (evaluate(load(name, device="cpu"), data).ap for name in names)
    assert judged.difference["AP"].value == pytest.approx(second - first)
    assert str(judged) == judged.text()
    assert "4 images" in repr(judged)
    found = [predict_dataset(load(name, device="cpu"), data) for name in names]
    assert compare(*found, data, resamples=50).to_dict() == judged.to_dict()


def test_what_cannot_be_compared_is_one_line(work):
    model, data = work / "model.safetensors", work / "shapes"
    with pytest.raises(ConfigError, match="resamples=3"):
        compare(model, model, data, split="test", resamples=3)
    with pytest.raises(ConfigError, match="split is of a path"):
        compare(model, model, open_dataset(data, "test"), split="test")
    with pytest.raises(FcosError, match="ci"):
        compare(model, model, data, ci=True)
    one = load(model, device="cpu")
    single = one.replace(config=one.config.override({"data": {"single_class": True}}))
    with pytest.raises(DataError, match="judge different classes"):
        compare(model, single, data, split="test")


def test_detections_without_weak_ones_are_told_of(work, capsys, tmp_path):
    model, data = load(work / "model.safetensors", device="cpu"), open_dataset(work / "shapes", "test")
    every = predict_dataset(model, data)
    for cut in (0.0, 0.5):
        evaluate(*rows_of("class", cut))
        line = "no detection has a score below 0.50; AP counts weaker ones too"
        assert (line in capsys.readouterr().err) == bool(cut)
    with pytest.raises(ConfigError, match="tile is of a model"):
        evaluate(every, data, tile=64)
    with pytest.raises(ConfigError, match="batch is of a model"):
        compare("a.json", every, data, batch=2)
    code, _, err = fcos(capsys, "eval", work / "shapes", "--model", "found.json")
    assert (code, err) == (2, "fcos: found.json is a file of detections, not a model; give it with --detections\n")


def test_labels_beyond_the_classes_are_one_class_with_all_others_where_all_are_one():
    from judging import dataset, found, record

    data = dataset(record(1, [[10, 10, 50, 50]], [0]))
    results = [found([[10, 10, 50, 50]], [0.9], [5])]
    assert evaluate(results, data, class_agnostic=True).ap == pytest.approx(1)
    with pytest.raises(DataError, match="label beyond the 2 classes"):
        evaluate(results, data)


def test_a_class_that_no_detection_names_was_not_found(work):
    """Labels that are names name what was found; a model names all that it knows, and must know the data's classes."""
    from fcos import Detections

    data = open_dataset(work / "shapes", "test")
    first = data.classes.names[0]
    kept = [r.labels == 0 for r in data.records]
    found = [
        Detections(r.boxes[keep], np.ones(keep.sum()), np.array([first] * int(keep.sum()), dtype=object))
        for r, keep in zip(data.records, kept, strict=True)
    ]
    metrics = evaluate(found, data)
    assert [row.ap for row in metrics.classes if row.name == first] == [pytest.approx(1.0)]
    assert metrics[first.upper()].ap == pytest.approx(1.0)
    with pytest.raises(FcosError, match=f"no class '{first}s'; did you mean {first}"):
        metrics[f"{first}s"]
    with pytest.raises(FcosError, match="no class 0"):
        metrics[0]
    with pytest.raises(TypeError, match="not iterable"):
        list(metrics)
    assert [row.ap for row in metrics.classes if row.name != first] == [0.0]
    named = [replace(one, names=(first, "none of them")) for one in found]
    with pytest.raises(DataError, match="does not know"):
        evaluate(named, data)


@pytest.mark.parametrize(("each", "told"), [(99, True), (100, False)])
def test_images_with_as_many_detections_as_are_kept_say_nothing_of_weak_ones(each, told):
    """Their weakest may be strong although nothing was left out by its score."""
    from judging import dataset, record

    truth = dataset(*(record(k, [[1, 1, 9, 9]] * each, [0] * each) for k in range(2)))
    boxes = torch.tensor([[1.0, 1.0, 9.0, 9.0]]).repeat(each, 1)
    seen = Detections(boxes, torch.linspace(0.9, 0.3, each), torch.zeros(each, dtype=torch.int64), names=("a",))
    assert bool(cut_note([seen, seen], truth)) == told


def rows_of(kind, cut, seed=0):
    """(detections with scores from `cut` on, what they are judged by): 200 images of three objects, of which 85 in 100
    are found. "class": a score that begins at 0.001 and is frequent there; "mean": one of fcos, which gets rare below
    0.2 (as of fcos-lite0 on COCO); "sure": a class score, too, of a detector that finds nothing wrong."""
    from judging import dataset, record

    rng = np.random.default_rng(seed)
    records, seen = [], []
    for k in range(200):
        corners = rng.uniform(0, 500, (3, 2))
        records.append(record(k, np.concatenate([corners, corners + 40], 1), [0, 0, 0]))
        right = np.where(rng.random(3) < 0.8, rng.beta(4, 2, 3), rng.uniform(0.01, 0.2, 3))[rng.random(3) < 0.85]
        wrong = rng.exponential(0.04, 20) + 0.001
        if kind == "mean":
            right, wrong = 0.1 + 0.9 * right, 0.1 + rng.gamma(3, 0.04, 20)
        scores = np.concatenate([right, wrong if kind != "sure" else wrong[:0]]).clip(0, 1)
        kept = np.flatnonzero(scores >= cut)
        boxes = rng.uniform(0, 500, (len(scores), 2))
        boxes[: len(right)] = corners[: len(right)]
        both = np.concatenate([boxes, boxes + 40], 1)[kept]
        seen.append(Detections(both, scores[kept], np.zeros(len(kept)), names=("a",)))
    return seen, dataset(*records, names=("a",))


@pytest.mark.parametrize("kind", ["class", "mean", "sure"])
def test_the_note_on_weak_detections_stands_where_ap_suffers_and_nowhere_else(kind):
    """What is whole never has it. Where three hundredths of AP are lost it stands, and not below a two-hundredth."""
    told = {}
    for cut in (0.0, 0.05, 0.1, 0.25, 0.5):
        seen, truth = rows_of(kind, cut)
        told[cut] = (bool(cut_note(seen, truth)), evaluate(seen, truth).ap)
    whole = told[0.0][1]
    assert not told[0.0][0]
    for cut, (noted, ap) in told.items():
        lost = 1 - ap / whole
        if lost < 0.005:
            assert not noted, (cut, lost)
        elif lost > 0.03 and cut > 0.06:  # that far some keep them to be judged by
            assert noted, (cut, lost)
