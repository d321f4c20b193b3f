"""A job's COCO results, and whether its images are reached from where it is resumed."""

import json

import numpy as np
import pytest

from fcos.data.open import Numbers
from fcos.errors import FcosError
from fcos.scale.job import Job, read_job
from fcos.scale.results import write_coco
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
