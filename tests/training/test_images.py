"""The images and the page of a run folder."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from judging import dataset, found, record
from PIL import Image
from tiny import make_shapes, tiny_config

from fcos.data.open import open_splits
from fcos.detections import Detections
from fcos.evaluation.coco import evaluate
from fcos.evaluation.metrics import precision_recall
from fcos.show import axes, plots, run_plots
from fcos.show.judged import mistakes, spread
from fcos.training.output import images as report
from fcos.training.output.folder import RunFolder


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_splits(make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 8, "val": 6}))


def perfect(data):
    """The truth as detections."""
    return [
        Detections(
            torch.tensor(r.boxes),
            torch.full((len(r.boxes),), 0.9),
            torch.tensor(r.labels),
            torch.full((len(r.boxes),), -1),
        )
        for r in data.records
    ]


class Links(HTMLParser):
    """Everything that a page would fetch, and the texts under its images."""

    def __init__(self, page):
        super().__init__()
        self.links, self.captions, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        fetched = [v for k, v in attrs if k in ("src", "href", "srcset", "data", "action", "background")]
        self.links += [v for v in fetched if not v.startswith("#")]  # those lead to a heading of the page
        self.inside = tag == "figcaption"

    def handle_data(self, data):
        if self.inside:
            self.captions.append(data)
        self.inside = False


def test_mistakes_of_each_image_by_hand():
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    data = dataset(
        record(9, boxes, [0, 0, 1], ignore=[False, False, True]),  # the order of ids is not that of the records
        record(4, [[0, 0, 10, 10]], [1]),
        record(6),
    )
    results = [
        # found; found twice; nothing there; in the ignored box; below the score
        found(
            [boxes[0], [0, 0, 10, 9], [60, 0, 70, 10], boxes[2], boxes[1]], [0.9, 0.8, 0.7, 0.6, 0.4], [0, 0, 0, 1, 0]
        ),
        found([[0, 0, 10, 10]], [0.9], [0]),  # under another name: missed and wrong
        found([[0, 0, 5, 5]], [0.5], [1]),
    ]
    missed, wrong = mistakes(results, data, score=0.5)
    assert missed.tolist() == [1, 1, 0]
    assert wrong.tolist() == [2, 1, 1]
    assert [a.tolist() for a in mistakes(results, data, score=0.95)] == [[2, 1, 0], [0, 0, 0]]


def test_images_are_spread_over_those_with_boxes():
    data = dataset(*(record(i, [[0, 0, 5, 5]] if i % 2 else [], [0] if i % 2 else []) for i in range(20)))
    assert spread(data, 4) == [1, 7, 13, 19]
    assert spread(data, 100) == list(range(1, 20, 2))
    assert spread(dataset(record(1), record(2)), 6) == [0, 1]
    assert spread(dataset(), 6) == []


def test_precision_of_the_mean_curve_by_hand():
    """3 objects; right, wrong, right: 1 up to recall 1/3, 2/3 up to 2/3, nothing beyond."""
    curve = precision_recall(np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1]), 3)
    recall = np.array([0, 1 / 3, 0.34, 2 / 3, 0.67, 1])
    np.testing.assert_allclose(plots._precision_at(curve, recall), [1, 1, 2 / 3, 2 / 3, 0, 0])


def test_columns_of_metrics_csv_as_series():
    rows = [
        {"step": "10", "loss": "1.5", "positives_by_level": "7 0", "AP": ""},
        {"step": "20", "loss": "nan", "positives_by_level": "", "AP": "0.25"},
        {"step": "30", "loss": "1", "positives_by_level": "5 2"},
    ]
    assert run_plots._series(rows, "loss") == ([10, 30], [1.5, 1])
    assert run_plots._series(rows, "AP") == ([20], [0.25])
    assert run_plots._series(rows, "positives_by_level 1") == ([10, 30], [0, 2])
    assert run_plots._levels(rows, (8, 16)) == [("positives_by_level 0", "P3"), ("positives_by_level 1", "P4")]
    assert run_plots._levels([{"step": "1", "positives": "3"}], (8, 16)) == [("positives", "")]


def test_curves_of_a_run_that_was_judged_before_its_first_step(tmp_path, recwarn):
    run_plots.results([{"step": "0", "AP": "0.5"}], tmp_path / "a.png", (8, 16))
    assert not [str(w.message) for w in recwarn]  # on a terminal each would be a line


def test_a_run_folder_with_everything_on_one_page(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_RENEW", 3600.0)
    run = RunFolder(tmp_path / "run <1>")
    run.start({"command": "a & b"})
    config = tiny_config(train={"plots": True})
    run.describe(config)
    run.record({"step": 1, "epoch": 0.5, "loss": 3.0, "box": 1.0, "lr": 0.1, "positives_by_level": "3 0"})
    images = report.RunImages(run, config, shapes)
    images.begin()
    blind = [Detections.empty() for _ in shapes["val"].records]
    images.judged(blind, evaluate(blind, shapes["val"]))
    images.renew(lambda: [("model", "x < y")])
    assert not (run.path / "results.png").exists()  # not yet
    images.renew(lambda: [("model", "x < y"), ("train", shapes["train"].summary())], last=True)

    page = (run.path / "report.html").read_text()
    parsed = Links(page)
    assert len(parsed.links) == len(parsed.captions) == 8
    assert all(re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]{4000}", link) for link in parsed.links)
    assert not re.search(r"https?:|url\(|@import", re.sub(r"base64,[^']+", "", page))
    assert "x &lt; y" in page
    contents = re.findall(r"<a href='#(part-\d)'>(.+?)</a>", page)
    assert contents == re.findall(r"<h2 id='(part-\d)'>(.+?)</h2>", page)
    assert contents[0][1] == "So far"
    assert contents[-1][1] == "Settings and surroundings"
    assert "a &amp; b" in page
    assert "disc (id 2)" not in page  # the lines of the classes; labels.png has them
    for name in ("labels", "results", "pr", "f1", "confusion", "reliability"):
        with Image.open(run.path / f"{name}.png") as image:
            assert min(image.size) > 400
            assert len(image.convert("RGB").quantize(16).getcolors()) > 3
    with Image.open(run.path / "val_worst.jpg") as image:
        assert np.asarray(image).std() > 10
    assert json.loads((run.path / "metrics.json").read_text())["AP"] == 0

    right = perfect(shapes["val"])
    report.draw_validation(run.path, right, shapes["val"], 0.5)
    assert not (run.path / "val_worst.jpg").exists()  # nothing is wrong any more
    assert (run.path / "val_0.jpg").exists()


def test_no_plots_and_no_validation(shapes, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.start({})
    config = tiny_config(train={"plots": False})
    run.describe(config)
    images = report.RunImages(run, config, {"train": shapes["train"]})
    images.begin()
    images.renew(lambda: [("model", "tiny")], last=True)
    assert {p.name for p in run.path.iterdir()} == {"config.yaml", "environment.json", "metrics.csv", "report.html"}
    assert Links((run.path / "report.html").read_text()).links == []


def test_labels_of_many_classes_most_without_boxes(tmp_path):
    names = tuple(f"a class with a long name, number {k}" for k in range(80))
    seen = record(1, [[0, 0, 30, 30], [5, 5, 6, 6]], [0, 0])  # no location learns the second box
    report.draw_labels(tmp_path / "labels.png", dataset(seen, record(2), names=names), tiny_config())
    with Image.open(tmp_path / "labels.png") as image:
        assert min(image.size) > 400
    assert len({axes.class_name(name) for name in names}) == 80


def test_labels_of_one_class_without_a_box(tmp_path):
    report.draw_labels(tmp_path / "labels.png", dataset(record(1), names=("cell",)), tiny_config())
    with Image.open(tmp_path / "labels.png") as image:
        assert min(image.size) > 400


def test_a_batch_is_drawn_with_its_points(shapes, tmp_path):
    from fcos.assign import assign_batch
    from fcos.data.loading.loader import train_loader
    from fcos.points import make_points
    from fcos.show.draw import level_color

    config = tiny_config()
    (batch,) = next(iter(train_loader(shapes["train"], config)))
    points = make_points(tuple(batch.images.shape[-2:]), config.model, config.assign)
    index = assign_batch(points, batch.targets, config.assign)
    drawn = report.draw_batch([(batch, index)], points, shapes["train"].classes.names)
    bare = report.draw_batch([(batch, torch.full_like(index, -1))], points, shapes["train"].classes.names)
    changed = drawn[(drawn != bare).any(axis=2)].astype(int)
    levels = set(points.level[(index >= 0).any(dim=0)].tolist())
    for level in levels:  # each level's colour is among what the points changed
        assert (np.abs(changed - np.array(level_color(level))).max(axis=1) < 12).any()


def test_a_running_mean_by_hand():
    """Over a twentieth of the values on either side: a straight line stays one, but for its ends."""
    line = run_plots._smooth([float(k) for k in range(60)])
    assert line[3:-3].tolist() == list(range(3, 57))
    assert (line[0], line[-1]) == (1.5, 57.5)  # of 0..3, of 56..59
    assert run_plots._smooth([0.0, 9.0]).tolist() == [4.5, 4.5]


def test_what_there_is_to_learn_by_hand(tmp_path, monkeypatch):
    """One box at the right, near the top; of 40 classes those at both ends are named, and how many are not."""
    figures = []
    new = run_plots.new_figure
    monkeypatch.setattr(run_plots, "new_figure", lambda *sides: figures.append(new(*sides)) or figures[0])
    told = run_plots.Labels(
        [40 - k for k in range(40)], [f"kind {k}" for k in range(40)], np.array([1]), np.array([[20.0, 30.0]]),
        np.array([[0.95, 0.05]]), np.array([0]), (8, 16),
    )  # fmt: skip
    run_plots.labels(told, tmp_path / "labels.png")
    classes, _, places, *_ = figures[0].axes
    heat = np.asarray(places.images[0].get_array())
    assert heat.sum() == heat[0, -1] == 1
    named = [tick.get_text() for tick in classes.get_yticklabels()]
    assert named == [*(f"kind {k}" for k in range(15)), "11 more", *(f"kind {k}" for k in range(26, 40))]


def test_a_confusion_matrix_by_hand(tmp_path, monkeypatch):
    """The darkness of a cell is its share of the row; of many classes those with most mistakes are shown."""
    figures = []
    new = plots.new_figure
    monkeypatch.setattr(plots, "new_figure", lambda *sides: figures.append(new(*sides)) or figures[-1])
    plots.confusion_matrix(np.array([[6, 2, 0], [0, 90, 10], [1, 0, 0]]), ("cat", "dog"), tmp_path / "few.png")
    wrong, right = (image.get_array().filled(0.0).tolist() for image in figures[0].axes[0].images)
    assert right == [[0.75, 0, 0], [0, 0.9, 0], [0, 0, 0]]
    assert wrong == [[0, 0.25, 0], [0, 0, 0.1], [1, 0, 0]]
    monkeypatch.setattr(plots, "MOST_CELLS", 1)
    plots.confusion_matrix(np.array([[900, 1, 0], [0, 5, 4], [0, 0, 0]]), ("cat", "dog"), tmp_path / "many.png")
    assert [tick.get_text() for tick in figures[1].axes[0].get_yticklabels()] == ["dog", "background"]
