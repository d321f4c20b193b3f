"""What verbs decide before they begin, each by itself."""

from pathlib import Path

import pytest
import torch

from fcos.cli import eval as judging
from fcos.cli import explain, predict_plan, track_run
from fcos.cli.eval import what_to_judge
from fcos.cli.explain import what_to_explain
from fcos.cli.train import worker_cores
from fcos.errors import FcosError
from fcos.inference.runtime_switch import PAYS
from fcos.inference.writers import Outputs
from fcos.system.environment import RUN_FILE
from fcos.types import Classes


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / RUN_FILE).write_text("{}")
    (folder / "best.safetensors").write_text("")
    return str(folder)


def test_a_run_alone_is_judged_by_its_own_images(run):
    weights, two = f"{run}/best.safetensors", ("a.json", run)
    asked = {
        "run": what_to_judge(run, None, None, None),
        "weights": what_to_judge(weights, None, None, None),
        "behind --model": what_to_judge(None, [run, "other"], None, None),
        "compared": what_to_judge(None, None, None, two),
        "both named": what_to_judge(run, None, None, two),
    }
    assert all(one.own and one.ways == 1 for one in asked.values())
    assert {name: one.place for name, one in asked.items()} == {
        **dict.fromkeys(asked, run),
        "weights": weights,
    }
    assert [one.models for one in asked.values()] == [(run,), (weights,), (run, "other"), (), ()]


def test_a_data_set_is_judged_on_where_it_is_named(run):
    file = Path("found.json")
    for place in ("data", run):  # a run beside --model or --detections is a folder as any other
        assert what_to_judge(place, [run], None, None) == judging.Asked(place, False, (run,), None, None)
        assert what_to_judge(place, None, file, None) == judging.Asked(place, False, (), file, None)
    asked = what_to_judge("data", [run], file, ("a", "b"))
    assert (asked.own, asked.ways) == (False, 3)
    assert what_to_judge(None, None, None, ("a", "b")).place == ""


@pytest.mark.parametrize(
    ("compare", "detections", "none"),
    [
        (None, None, False),
        (None, Path("x"), True),
        (("a.json", "b"), None, False),
        (("a.json", "b.JSON.gz"), None, True),
    ],
)
def test_files_of_detections_are_no_model(compare, detections, none):
    assert judging.Asked("data", False, (), detections, compare).no_model is none


def test_a_run_or_data_set_is_explained_by_its_objects_and_an_image_by_its_boxes(run, tmp_path):
    Asked, default = explain.Asked, explain.DEFAULT
    (tmp_path / "a.jpg").write_text("")
    assert what_to_explain(run, False, default) == Asked(run)
    assert what_to_explain(f"{run}/best.safetensors", False, default) == Asked(f"{run}/best.safetensors")
    assert what_to_explain(None, False, run) == Asked(run)
    assert what_to_explain(run, True, default) == Asked(default, data=Path(run))  # behind --data it is data
    assert what_to_explain(run, False, "other") == Asked("other", data=Path(run))
    assert what_to_explain(f"{run}/a.jpg", False, default) == Asked(default, f"{run}/a.jpg")
    assert what_to_explain("a.jpg", True, default) == Asked(default, data=Path("a.jpg"))
    assert what_to_explain("found.json", False, default) == Asked(default, data=Path("found.json"))
    with pytest.raises(FcosError, match="give an image, a data set or a run folder"):
        what_to_explain(None, False, default)
    with pytest.raises(FcosError, match="there is no folder or file"):
        what_to_explain(None, False, str(tmp_path / "gone"))


def test_predictions_are_drawn_in_a_folder_where_nothing_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    none, file = Outputs(), Path("found.jpg")

    def outputs(out, as_json, others, count=1, moving=False):
        return predict_plan.Asked(out, as_json, others).outputs(count, moving=moving)

    table = Outputs(csv=Path("found.csv"))
    assert outputs(None, False, none) == Outputs(folder=Path("predictions"))
    assert outputs(None, True, none) == none
    assert outputs(None, False, table) == table
    assert outputs(file, False, none) == Outputs(file=file)
    assert outputs(Path("found"), True, none, 2) == Outputs(folder=Path("found"))
    with pytest.raises(FcosError, match="one file, but there are 2 images; name a folder"):
        outputs(file, False, none, 2)
    with pytest.raises(FcosError, match="name a folder; a table of all: --csv FILE"):
        outputs(Path("found.csv"), False, none, 2)
    for name in ("found.jpg", "found.mp4"):
        with pytest.raises(FcosError, match="of a video several files are written"):
            outputs(Path(name), False, none, moving=True)
    file.mkdir()
    assert outputs(file, False, none, 2) == Outputs(folder=file)


@pytest.mark.parametrize(
    ("asked", "count", "set_to", "chosen", "told"),
    [
        (None, PAYS - 1, "", "own", False),
        ("auto", PAYS - 1, "", "own", True),
        (None, PAYS, "", None, False),
        ("auto", PAYS, "", "auto", False),
        ("torch", 1, "", "torch", False),
        (None, 1, "onnx", None, False),
    ],
)
def test_few_images_are_computed_in_torch(asked, count, set_to, chosen, told, monkeypatch, capsys):
    monkeypatch.setenv("FCOS_RUNTIME", set_to)
    assert predict_plan.pick_runtime(asked, count) == chosen
    assert ("fewer than" in capsys.readouterr().err) is told


def test_classes_that_are_left_out_have_a_score_that_nothing_reaches():
    class Some:
        classes, shown = Classes(("cat", "dog")), 0.3

    assert [t.tolist() for t in predict_plan.shown_scores(Some, None, None)] == [
        pytest.approx([0.3, 0.3]),
        [0, 0],
    ]
    scores, least = predict_plan.shown_scores(Some, "cat=0.6", "cat")
    assert scores[0] == torch.tensor(0.6)
    assert least[0] == 0
    assert scores[1] > 1
    assert least[1] > 1
    followed = track_run.looked_at(Some, 0.1, "dog")
    assert followed[0] > 1
    assert followed[1] == torch.tensor(0.1)


def test_lines_and_zones_are_told_in_the_words_they_were_given_in(tmp_path):
    counters = track_run.parse_counters(["0,0,9,9", "0,0,9,9"], ["0,0,9,0,9,9"], 0.1)
    counters.lines[1][1].entered["dog"] = 2
    first, second, zone = counters.text()
    assert first.startswith("\nline 0,0,9,9\n")
    assert "dog" not in first
    assert "dog" in second
    assert zone.startswith("\nzone 0,0,9,0,9,9\n")
    assert not track_run.parse_counters([], [], 0.1).any
    clip = tmp_path / "clip.mp4"
    clip.write_text("")
    files = track_run.files_in(Path("out"), str(clip), draw=True, counts=counters.any)
    assert (files.drawn, files.sound, files.counts) == (Path("out/clip.mp4"), clip, Path("out/clip.counts.json"))
    files = track_run.files_in(Path("out"), str(clip), draw=False, counts=False)
    assert (files.drawn, files.sound, files.counts, files.mot) == (None, None, None, Path("out/clip.txt"))


@pytest.mark.parametrize("text", ["0", "four", "-1", ""])
def test_the_cores_of_a_worker_are_a_number(text, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    with pytest.raises(FcosError, match="give the cores of each worker"):
        worker_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert worker_cores() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert worker_cores() == 1
