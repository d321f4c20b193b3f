"""A job's COCO results, and whether its images are reached from where it is resumed."""

import json

import numpy as np
import pytest

from fcos.data.open import Numbers
from fcos.errors import DataError, FcosError
from fcos.scale.engine import do_parts
from fcos.scale.job import Job, read_job
from fcos.scale.results import write_coco
from fcos.scale.rows import Count
from fcos.types import Classes

CLASSES = Classes(("cat", "dog"), (3, 9))


def job(folder, paths, rows=None, **more):
    """A job of one part, done where `rows` are given."""
    folder.mkdir()
    made = Job(folder, ("nowhere",), len(paths), len(paths), "jsonl", "m", CLASSES, {"score": "", **more})
    lines = [json.dumps(str(path)) + "\n" for path in paths]
    (folder / "paths.jsonl").write_text("".join(lines))
    np.save(folder / "starts.npy", np.array([0, sum(map(len, lines))], np.int64))
    (folder / "parts").mkdir()
    if rows is not None:
        made.file(0).write_text("".join(json.dumps(row) + "\n" for row in rows))
    made.write()
    return read_job(folder)


def row(path, label):
    return {
        "path": str(path), "width": 30, "height": 20, "boxes": [[1.0, 2.0, 11.0, 8.0]], "labels": [label],
        "names": [CLASSES.names[label]], "scores": [0.5], "error": "", "model": "m", "version": "1",
    }  # fmt: skip


def test_results_of_rows_are_numbered_as_the_data_set(tmp_path):
    """A class that the data lacks has no id."""
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    job(tmp_path / "job", paths, [row(paths[0], 0), row(paths[1], 1)])
    numbers = Numbers({paths[0]: 7, paths[1]: 8}, Classes(("Dog",), (4,)))
    written = write_coco(tmp_path / "job", tmp_path / "r.json", numbers)
    assert (written.images, written.detections, written.foreign, written.limited) == (2, 1, 1, True)
    job(tmp_path / "all", paths, [row(paths[0], 0), row(paths[1], 1)], score="0")
    assert not write_coco(tmp_path / "all", tmp_path / "all.json", numbers).limited
    (only,) = json.loads((tmp_path / "r.json").read_text())
    assert only == {"image_id": 8, "category_id": 4, "bbox": [1.0, 2.0, 10.0, 6.0], "score": 0.5}


def test_parts_by_their_files(tmp_path):
    """The last part has what is left; a file of another form or number is no part."""
    made = Job(tmp_path, ("nowhere",), 7, 3, "jsonl", "m", CLASSES, {})
    assert [made.images_in(part) for part in range(made.parts)] == [3, 3, 1]
    (tmp_path / "parts").mkdir()
    for name in ("part-00000001.jsonl", "part-00000002.parquet", "part-00000009.jsonl", "part-x.jsonl"):
        (tmp_path / "parts" / name).touch()
    assert made.done().tolist() == [False, True, False]


def test_a_job_knows_where_it_is_not(tmp_path, monkeypatch):
    """Relative paths lead somewhere from one folder alone; a lost image among others is no reason to stop."""
    (tmp_path / "home" / "in").mkdir(parents=True)
    (tmp_path / "home" / "in" / "a.jpg").touch()
    made = job(tmp_path / "job", ["in/a.jpg", "in/gone.jpg"])
    monkeypatch.chdir(tmp_path / "home")
    made.check_reachable()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FcosError, match="go on in the folder in which the job was begun"):
        made.check_reachable()
    (tmp_path / "nowhere").mkdir()  # a source is there, so its images are lost
    made.check_reachable()


def test_detections_are_counted_and_not_their_images(tmp_path):
    paths = ["a.jpg", "b.jpg", "c.jpg"]
    two, none, broken = (row(path, 0) for path in paths)
    two |= {key: 2 * two[key] for key in ("boxes", "labels", "names", "scores")}
    none |= {key: [] for key in ("boxes", "labels", "names", "scores")}
    broken |= {key: [] for key in ("boxes", "labels", "names", "scores")} | {"error": "cannot read c.jpg"}
    assert job(tmp_path / "job", paths, [two, none, broken]).count([0]) == Count(3, 1, 2, ("cannot read c.jpg",))


def test_a_part_that_is_there_already_moves_no_row_to_another(tmp_path):
    """A worker that is lost may have written a part before it said so: its images are not detected in again."""
    paths = [f"{k}.jpg" for k in range(5)]
    lines = [json.dumps(path) + "\n" for path in paths]
    made = Job(tmp_path, ("nowhere",), 5, 2, "jsonl", "m", CLASSES, {})
    (tmp_path / "paths.jsonl").write_text("".join(lines))
    (tmp_path / "parts").mkdir()
    made.file(1).write_text("".join(json.dumps(row(path, 1)) + "\n" for path in paths[2:4]))
    asked = []

    class Detector:
        def stream(self, paths):
            asked.extend(paths)
            return (row(path, 0) for path in paths)

    starts = np.array([0, *np.cumsum([sum(map(len, lines[k : k + 2])) for k in (0, 2, 4)])])
    counts = list(do_parts(Detector(), made, [0, 1, 2], starts))
    assert [count.images for count in counts] == [2, 2, 1]
    assert asked == ["0.jpg", "1.jpg", "4.jpg"]
    assert [(r["path"], r["labels"]) for r in made.rows()] == [(path, [int(path in paths[2:4])]) for path in paths]


def test_a_list_that_lost_a_line_is_refused(tmp_path):
    made = job(tmp_path / "job", ["a.jpg", "b.jpg"])
    text = (tmp_path / "job" / "paths.jsonl").read_text()
    (tmp_path / "job" / "paths.jsonl").write_text(json.dumps("a" * (len(text) - 3)) + "\n")  # as long as before
    with pytest.raises(DataError, match="does not hold the paths it should"):
        made.paths(0, made.starts())
