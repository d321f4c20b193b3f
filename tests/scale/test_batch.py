"""Rows in, rows out: what any engine gets is what the detector itself finds, in whatever kind of table."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import NAMES, fcos, tiny_config

from fcos.errors import DataError, FcosError
from fcos.inference.load import load
from fcos.network import weights
from fcos.scale import BatchDetector, detector
from fcos.scale.detector import Work
from fcos.scale.engine import Engine, do_parts
from fcos.scale.job import Order, _merged, _sorted, open_job, read_job
from fcos.scale.rows import Count, Row, count_part, read_part
from fcos.scale.run import detect_all
from fcos.types import Classes


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(3)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 5})
    network = weights.build(config, 2)
    return weights.save(
        tmp_path_factory.mktemp("model") / "tiny.safetensors", network.state_dict(), config, Classes(NAMES, (2, 7))
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve images of several sizes in two folders, one that is none and one cut short."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "inner ü").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        place = folder / ("inner ü" if i % 3 == 0 else ".") / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (40 + 8 * (i % 4), 64, 3), dtype=np.uint8)).save(place)
    (folder / "5.png").write_bytes(b"no image")
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:900])
    return folder


def expected(model, folder):
    """path -> (size, boxes, labels, scores) by the detector one image at a time; None where it cannot be read."""
    detect = load(model, device="cpu", threads=1)
    found = {}
    for path in sorted(folder.rglob("*.png")):
        try:
            d = detect(str(path), score=0)
        except FcosError:
            found[str(path)] = None
            continue
        found[str(path)] = (d.size, d.boxes.tolist(), d.labels.tolist(), d.scores.tolist())
    return found


def told(rows):
    """The same from rows."""
    return {
        row["path"]: None
        if row["error"]
        else (
            (row["height"], row["width"]),
            [list(map(float, box)) for box in row["boxes"]],
            [int(k) for k in row["labels"]],
            [float(s) for s in row["scores"]],
        )
        for row in rows
    }


def in_rows(columns):
    keys = list(columns)
    return [dict(zip(keys, values, strict=True)) for values in zip(*(columns[k] for k in keys), strict=True)]


def test_a_batch_of_any_kind_gives_the_detectors_own_detections(model, pictures):
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    want = expected(model, pictures)
    assert sum(value is None for value in want.values()) == 2
    detect = BatchDetector(str(model), score=0, device="cpu")
    paths, mine = list(want), list(range(len(want)))
    table = {"path": paths, "mine": mine}
    plain = detect(table)
    arrays = detect({"path": np.array(paths), "mine": np.array(mine)})
    frame = detect(pd.DataFrame(table))
    arrow = detect(pa.table(table))
    batch = detect(pa.RecordBatch.from_pydict(table))
    assert isinstance(frame, pd.DataFrame)
    assert isinstance(arrow, pa.Table)
    assert isinstance(batch, pa.RecordBatch)
    for got in (in_rows(plain), in_rows(arrays), frame.to_dict("records"), arrow.to_pylist(), batch.to_pylist()):
        assert told(got) == want
        assert [row["mine"] for row in got] == mine
        assert {row["version"] for row in got} == {plain["version"][0]}
        assert all(row["names"] == [NAMES[k] for k in row["labels"]] for row in got)
        assert all("cannot read" in row["error"] and row["path"] in row["error"] for row in got if row["error"])


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"batch": -1}, "batch=-1: give 1 or more, or 0: chosen for you"),
        ({"batch": "2"}, "batch='2': give 1 or more"),
        ({"lanes": -1}, "lanes=-1: give 1 or more, or 0: chosen for you"),
        ({"threads": -1}, "-1 threads cannot be"),
    ],
)
def test_numbers_that_cannot_be_are_one_line_at_once(setting, line):
    with pytest.raises(FcosError, match=line):
        BatchDetector("no model is read yet", **setting)


def test_numbers_that_are_chosen_change_no_row(model, pictures):
    paths = sorted(map(str, pictures.rglob("*.png")))
    plain = BatchDetector(str(model), score=0, device="cpu")({"path": paths})
    chosen = BatchDetector(str(model), score=0, device="cpu", batch=0, lanes=0, threads=2)({"path": paths})
    assert told(in_rows(chosen)) == told(in_rows(plain))
    assert Work(batch=0, lanes=0, threads=2, device="cpu").batching() == (1, 2)
    assert Work(batch=3, lanes=0, threads=2, device="cpu").batching() == (3, 1)
    with pytest.raises(FcosError, match="lanes=0: give 1 or more"):
        load(model, device="cpu", lanes=0)


def test_no_rows_are_a_table_with_all_columns(model):
    pa = pytest.importorskip("pyarrow")
    detect = BatchDetector(str(model), score=0, device="cpu")
    assert detect({"path": []}) == {key: [] for key in Row.__annotations__}
    empty = detect(pa.table({"path": pa.array([], pa.string())}))
    assert empty.num_rows == 0
    assert empty.schema.field("boxes").type == pa.list_(pa.list_(pa.float32()))
    batch = detect(pa.RecordBatch.from_pydict({"path": pa.array([], pa.string()), "mine": pa.array([], pa.int64())}))
    assert isinstance(batch, pa.RecordBatch)
    assert (batch.num_rows, batch.schema.names) == (0, [*empty.schema.names, "mine"])


def test_it_travels_and_loads_once_in_a_process(model, pictures, monkeypatch):
    detect = BatchDetector(str(model), score=0, device="cpu")
    sent = pickle.dumps(detect)
    assert len(sent) < 1000
    calls = []
    real = detector.load_together
    monkeypatch.setattr(detector, "load_together", lambda names, *a, **k: calls.append(names) or real(names, *a, **k))
    detector._opened.cache_clear()
    first = pickle.loads(sent)({"path": [str(pictures / "1.png")]})
    second = pickle.loads(sent)({"path": [str(pictures / "1.png")]})
    assert first == second
    assert calls == [(str(model),)]


def test_a_new_object_sees_that_the_weights_changed(model, pictures, tmp_path):
    path, rows = tmp_path / "mine.safetensors", {"path": [str(pictures / "1.png")]}
    path.write_bytes(model.read_bytes())
    old = BatchDetector(str(path), score=0, device="cpu")
    before = old(rows)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 3})
    weights.save(path, weights.build(config, 2).state_dict(), config, Classes(NAMES, (2, 7)))
    after = BatchDetector(str(path), score=0, device="cpu")(rows)
    assert (len(before["scores"][0]), len(after["scores"][0])) == (5, 3)
    assert before["model"] != after["model"] == [Work((str(path),)).digest()]
    assert old(rows) == before
    assert pickle.loads(pickle.dumps(old))(rows) == after


def test_a_job_whose_weights_change_meanwhile_ends(model, pictures, tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(model.read_bytes())
    work = Work((str(path),), score="0", device="cpu")
    job = open_job(Order(tmp_path / "out", (str(pictures),), "jsonl"), work)
    config = tiny_config()
    weights.save(path, weights.build(config, 2).state_dict(), config, Classes(NAMES, (2, 7)))
    with pytest.raises(FcosError, match=f"the job began with {job.model}, and that file has changed"):
        list(do_parts(BatchDetector.of(work), job, [0, 1], job.starts()))
    assert not job.done().any()


def test_no_column_is_lost(model):
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    detect = BatchDetector(str(model), score=0, device="cpu")
    table = {"path": ["a.jpg"], "labels": [[1]], "width": [3]}
    for batch in (table, pd.DataFrame(table), pa.table(table)):
        with pytest.raises(DataError, match="made here: 'labels', 'width'; rename them"):
            detect(batch)
    other = BatchDetector(str(model), score=0, device="cpu", column="image")
    assert other({"image": ["a.jpg"]})["image"] == ["a.jpg"]
    with pytest.raises(DataError, match="'path'"):
        other({"image": ["a.jpg"], "path": ["somewhere else"]})


def test_what_upsets_the_network_is_one_row(model, pictures, monkeypatch):
    """Not only what cannot be read: an error from anywhere costs its image, not the batch; the others stay right."""
    want = expected(model, pictures)
    bad = str(pictures / "inner ü" / "3.png")
    real = detector.run

    def run(network, paths, *rest):
        for path, image, found in real(network, paths, *rest):
            if str(path) == bad:
                raise RuntimeError("out of cheese\nreally")
            yield path, image, found

    monkeypatch.setattr(detector, "run", run)
    rows = in_rows(BatchDetector(str(model), score=0, device="cpu")({"path": list(want)}))
    assert told(rows) == want | {bad: None}
    assert next(row["error"] for row in rows if row["path"] == bad).endswith("RuntimeError: out of cheese")


def test_what_upsets_every_picture_is_raised(model, pictures, monkeypatch):
    def run(*_):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(detector, "run", run)
    with pytest.raises(RuntimeError, match="the device is gone"):
        BatchDetector(str(model), score=0, device="cpu")({"path": [str(pictures / "1.png")]})


def test_images_that_upset_the_network_now_and_then_are_no_lost_device(model, pictures, monkeypatch):
    """However many there are in all: a good one between them shows that the device is there."""
    monkeypatch.setattr(detector, "_UPSET", 3)
    real = detector.run
    good, bad = str(pictures / "1.png"), str(pictures / "2.png")

    def run(network, paths, *rest):
        for one in real(network, paths, *rest):
            if str(one[0]) == bad:
                raise RuntimeError("too odd")
            yield one

    monkeypatch.setattr(detector, "run", run)
    rows = in_rows(BatchDetector(str(model), score=0, device="cpu")({"path": [bad, bad, good] * 3}))
    assert [bool(row["error"]) for row in rows] == [True, True, False] * 3


def test_a_device_that_goes_away_ends_the_job_and_is_no_error_of_every_image(model, pictures, monkeypatch, tmp_path):
    """What was done before is there, whole; a resumed job does the rest, and no row is the device's fault."""
    many = tmp_path / "many"
    many.mkdir()
    for number in range(60):
        (many / f"{number:03d}.png").symlink_to(pictures / "1.png")
    real, left = detector.run, [10]

    def run(network, paths, *rest):
        for one in real(network, paths, *rest):
            if not left[0]:
                raise RuntimeError("the device is gone")
            left[0] -= 1
            yield one

    monkeypatch.setattr(detector, "run", run)
    work = Work((str(model),), score="0", device="cpu")
    order = Order(tmp_path / "out", (str(many),), "jsonl", workers=1)
    with pytest.raises(RuntimeError, match="the device is gone"):
        detect_all(order, work, Engine(), print, quiet=True)
    there = read_job(order.folder)
    assert there is not None
    assert there.done().sum() == 10 // there.size
    left[0] = 1000
    outcome = detect_all(replace(order, resume=True), work, Engine(), print, quiet=True)
    assert outcome.whole[:2] == (60, 0)


def test_each_image_that_cannot_be_read_is_told_once(model, pictures, tmp_path):
    work = Work((str(model),), score="0", device="cpu")
    order = Order(tmp_path / "out", tuple(str(pictures / f"{k}.png") for k in (1, 2, 5, 7, 8)), "jsonl")
    lines = []
    first = detect_all(order, work, Engine(), lines.append, quiet=True)
    assert len(lines) == 2
    assert "5.png" in lines[0]
    assert "7.png" in lines[1]
    again = detect_all(replace(order, resume=True), work, Engine(), lines.append, quiet=True)
    assert len(lines) == 2
    assert first.whole == again.whole
    assert (first.now, again.now) == (first.whole, Count())


def test_models_scores_and_settings_come_in_the_forms_that_load_takes(model):
    plain = BatchDetector(str(model), score="disc=0.3,square=0.2", overrides=["decode.nms_iou=0.5"]).work
    for overrides in ("decode.nms_iou=0.5", {"decode.nms_iou": 0.5}):
        assert BatchDetector(model, score={"disc": 0.3, "square": 0.2}, overrides=overrides).work == plain
    assert BatchDetector([model, str(model)]).work.models == (str(model), str(model))


def test_mistakes_are_one_line(model):
    with pytest.raises(FcosError, match="no setting 'thread'; did you mean threads"):
        BatchDetector(str(model), thread=2)
    with pytest.raises(DataError, match="no column 'path'; they have file"):
        BatchDetector(str(model), score=0, device="cpu")({"file": ["a.jpg"]})
    with pytest.raises(DataError, match="cannot take a list"):
        BatchDetector(str(model), score=0, device="cpu")(["a.jpg"])


# --------------------------------------------------------------------------- jobs


def test_sorting_on_disk_is_sorting(monkeypatch):
    from fcos.scale import job

    monkeypatch.setattr(job, "_SORTED", 7)
    monkeypatch.setattr(job, "_RUNS", 3)
    rng = np.random.default_rng(1)
    for count in (0, 1, 6, 7, 8, 200):
        lines = [json.dumps(f"{k} \udc80\n{'x' * (k % 5)}") for k in rng.integers(0, 80, count).tolist()]
        assert list(_sorted(lines)) == sorted(set(lines))
    assert list(_merged([])) == []


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_job_holds_every_picture_once(model, pictures, capsys, tmp_path, form):
    pytest.importorskip("pyarrow")
    want = expected(model, pictures)
    detect = ["--engine", "local", "--parts", form, "--model", model, "--score", "0", "--cpus", "1"]
    out = tmp_path / "rows"
    code, text, err = fcos(capsys, "predict", pictures, pictures / "1.png", *detect, "--out", out)
    assert (code, text) == (1, "")
    assert "2 images could not be read" in err
    assert "5.png" in err
    job = read_job(out)
    assert job is not None
    rows = list(job.rows())
    assert len(rows) == len(want) == job.images
    assert told(rows) == want
    assert [row["path"] for row in rows] == sorted(want, key=json.dumps)
    assert {row["model"].partition("@")[0] for row in rows} == {str(model)}
    assert job.count(range(job.parts))[:2] == (12, 2)

    # a part that is lost is done again, and nothing else is touched
    parts = sorted((out / "parts").iterdir())
    stamps = {path: path.stat().st_mtime_ns for path in parts}
    before = list(read_part(parts[3], form))
    parts[3].unlink()
    (out / "parts" / ".writing-abc").write_bytes(b"half")
    code, _, err = fcos(capsys, "predict", pictures, pictures / "1.png", *detect, "--out", out)
    assert code == 2
    assert "--resume" in err
    code, _, err = fcos(capsys, "predict", pictures, pictures / "1.png", *detect, "--out", out, "--resume")
    assert code == 1
    assert "11 of them done before" in err
    assert list(read_part(parts[3], form)) == before
    changed = {path for path in parts if path.stat().st_mtime_ns != stamps[path]}
    assert changed == {parts[3]}
    assert not list((out / "parts").glob(".*"))


def test_coco_results_are_those_of_predict(model, pictures, capsys, tmp_path):
    pytest.importorskip("pyarrow")
    shared = [pictures, "--model", model, "--device", "cpu", "--score", "0"]
    fcos(capsys, "predict", *shared, "--coco", tmp_path / "one.json")
    fcos(capsys, "predict", *shared, "--engine", "local", "--out", tmp_path / "rows")
    code, out, err = fcos(capsys, "data", "results", tmp_path / "rows", tmp_path / "two.json")
    assert (code, err) == (0, "")
    assert "10 images" in out
    assert "2 images that could not be read" in out

    def by_name(file):
        ids = {i["id"]: i["file_name"] for i in json.loads(file.with_suffix(".images.json").read_text())["images"]}
        rows = json.loads(file.read_text())
        return sorted((ids[r["image_id"]], r["category_id"], tuple(r["bbox"]), r["score"]) for r in rows)

    one, two = by_name(tmp_path / "one.json"), by_name(tmp_path / "two.json")
    assert len(one) > 10
    assert [row[:2] for row in two] == [row[:2] for row in one]
    np.testing.assert_allclose([row[2] for row in two], [row[2] for row in one], atol=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "spark"], ["no engine 'spark'", "local, ray"]),
        (["--engine", "local", "--gpus", "2"], ["--engine ray"]),
        (["--engine", "ray", "--gpus", "1", "--cpus", "1"], ["--gpus and --cpus"]),
        (["--engine", "local", "--cpus", "0"], ["--cpus 0"]),
        (["--engine", "local", "--parts", "csv"], ["csv", "parquet or jsonl"]),
        (["--engine", "local", "--coco", "x.json"], ["--engine takes no --coco"]),
        (["--engine", "local", "--score", "cow=0.5"], ["no class 'cow'"]),
        (["--engine", "local", "--set", "decode.nms_iou=7"], ["decode.nms_iou"]),
        (["--cpus", "2"], ["without --engine takes no --cpus"]),
        (["--resume"], ["without --engine takes no --resume"]),
    ],
)
def test_wrong_words_end_in_one_line(model, pictures, capsys, tmp_path, words, said):
    code, out, err = fcos(capsys, "predict", pictures, "--model", model, "--out", tmp_path / "rows", *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    for part in said:
        assert part in err
    assert not (tmp_path / "rows" / "parts").exists()


def test_going_on_with_another_model_or_other_pictures_is_refused(model, pictures, capsys, tmp_path):
    job = ["--engine", "local", "--parts", "jsonl", "--device", "cpu", "--out", tmp_path / "rows"]
    assert fcos(capsys, "predict", pictures / "1.png", "--model", model, *job)[0] == 0
    code, _, err = fcos(capsys, "predict", pictures / "2.png", "--model", model, *job, "--resume")
    assert code == 2
    assert "other images" in err
    code, _, err = fcos(capsys, "predict", pictures / "1.png", "--model", model, *job, "--resume", "--score", "0.3")
    assert code == 2
    assert "other score" in err
    code, _, err = fcos(capsys, "predict", pictures / "1.png", *job, "--resume")
    assert code == 2
    assert "other model" in err


@pytest.mark.parametrize(
    ("name", "value"),
    [("score", "0.3"), ("runtime", "torch"), ("dtype", "bf16"), ("tile", 48), ("overlap", 0.5), ("tta", "flip"),
     ("overrides", ("decode.nms_iou=0.5",)), ("threads", 2), ("lanes", 2), ("batch", 3), ("device", "cuda")],
)  # fmt: skip
def test_going_on_needs_what_decides_the_rows_and_no_more(model, pictures, tmp_path, name, value):
    order = Order(tmp_path / "rows", (str(pictures / "1.png"),), "jsonl")
    begun = open_job(order, Work((str(model),)))
    go_on, other = replace(order, resume=True), Work((str(model),), **{name: value})
    if name in ("threads", "lanes", "batch", "device"):
        assert open_job(go_on, other) == begun
        return
    with pytest.raises(FcosError, match=f"was begun with other {name}"):
        open_job(go_on, other)


def test_a_model_in_two_files_is_another_where_either_changes(tmp_path):
    graph, weights_of_it = tmp_path / "model.xml", tmp_path / "model.bin"
    seen = set()
    for pair in ((b"a", b"b"), (b"a", b"c"), (b"d", b"c")):
        for file, content in zip((graph, weights_of_it), pair, strict=True):
            file.write_bytes(content)
        seen.add(Work((str(graph),)).digest())
    assert len(seen) == 3


def test_odd_names_are_kept_or_written_out(model, tmp_path, capsys):
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [b"a b.png", b"line\nbreak.png", b"half \xff.png", b'"quoted".png']
    for name in names:
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))
        Image.new("RGB", (64, 48), (9, 9, 9)).save(path, format="PNG")
    for form in ("jsonl", "parquet"):
        out = tmp_path / form
        code, _, err = fcos(
            capsys, "predict", folder, "--engine", "local", "--parts", form, "--model", model, "--device", "cpu",
            "--out", out,
        )  # fmt: skip
        assert code == 0, err
        job = read_job(out)
        assert job is not None
        rows = list(job.rows())
        assert [row["error"] for row in rows] == [""] * 4
        assert {row["path"].rpartition("/")[2] for row in rows} == {
            "a b.png", "line\nbreak.png", "half \\udcff.png", '"quoted".png'
        }  # fmt: skip
        assert count_part(job.file(0), job.form).images == 1


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_in_place_of_a_part_is_refused(tmp_path, form):
    """Nothing waits for a writer that may never come."""
    part = tmp_path / f"part-0.{form}"
    os.mkfifo(part)
    for read in (lambda: count_part(part, form), lambda: list(read_part(part, form))):
        with pytest.raises(DataError, match="it is a pipe, not a file"):
            read()
