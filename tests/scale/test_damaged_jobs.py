"""A job folder that was damaged: one line, whichever of its files it is."""

import io
import json
import random
import shutil
import struct

import numpy as np
import pytest
from limits import Silent, attack, damaged, run
from tiny import make_shapes, tiny_config

from fcos.network import weights
from fcos.system.readers import parse_array
from fcos.types import Classes

ODD = [None, -1, 0, 10**30, 1.5, "", "x", "\0", [], {}, [[1, 2]], True]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """A done job of each kind of parts, and the line that began it."""
    folder = tmp_path_factory.mktemp("jobs")
    make_shapes(folder / "set", {"train": 3})
    config = tiny_config()
    network = weights.build(config, 2)
    weights.save(folder / "m.safetensors", network.state_dict(), config, Classes(("disc", "square")))
    lines = {}
    for form in ("jsonl", "parquet"):
        if form == "parquet":
            pytest.importorskip("pyarrow")
        line = ["predict", str(folder / "set" / "images"), "--model", str(folder / "m.safetensors"), "--score", "0"]
        lines[form] = [*line, "--device", "cpu", "--engine", "local", "--parts", form]
        assert run([*lines[form], "--out", str(folder / form)]) == 0
    return folder, lines


@pytest.mark.parametrize("count", [12, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_any_job_folder(jobs, tmp_path, form, count):
    whole, lines = jobs
    names = sorted(p.relative_to(whole / form) for p in (whole / form).rglob("*") if p.is_file())

    def gate(rng: random.Random) -> None:
        job = tmp_path / "job"
        shutil.rmtree(job, ignore_errors=True)
        shutil.copytree(whole / form, job)
        path = job / rng.choice(names)
        kind = rng.randrange(4)
        if kind == 0:
            path.unlink()
        elif kind == 1 and path.suffix in (".json", ".jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else []
            row = rng.choice(rows) if rows else json.loads(path.read_text())
            if isinstance(row, dict):
                row[rng.choice(list(row))] = rng.choice(ODD)
            path.write_text("".join(json.dumps(r) + "\n" for r in rows) if rows else json.dumps(row))
        elif kind == 2:
            path.write_bytes((job / rng.choice(names)).read_bytes())
        else:
            path.write_bytes(damaged(path.read_bytes(), rng))
        if rng.random() < 0.5:
            for part in (job / "parts").iterdir():
                part.unlink()
        resume = [*lines[form], "--out", str(job), "--resume"]
        run(rng.choice([resume, ["data", "results", str(job), str(tmp_path / "c.json")]]))
        if not job.is_dir():
            raise Silent("the job is gone")

    attack(count, gate)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': (",
        "{'shape': (3,",
        "[" * 300,
        "\x00",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (10**30,)}",
        "{1: 2}",
    ],
)
def test_header_of_an_array(header):
    text = header.encode()
    assert parse_array(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(24)) is None
    whole = io.BytesIO()
    np.save(whole, np.arange(3))
    assert parse_array(whole.getvalue()).tolist() == [0, 1, 2]
    assert parse_array(whole.getvalue()[:-1]) is None
