"""BatchDetector in other engines, as docs/scale.md shows it: Ray Data, Daft, Spark; skipped where one is absent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fcos.scale import BatchDetector
from fcos.system.files import ASSETS

PATHS = [*sorted(map(str, (ASSETS / "photos").glob("*.jpg")))[:4], "missing.jpg"]

RAY = """
import ray
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
rows = ray.data.from_items([{"path": path} for path in paths])
rows = rows.map_batches(
    BatchDetector, fn_constructor_args=("fcos-lite0",), batch_size=2, batch_format=FORMAT, num_cpus=1,
    compute=ray.data.ActorPoolStrategy(size=1),
)
rows = rows.take_all()
"""

DAFT = """
import daft

@daft.cls
class Detect:
    def __init__(self):
        self.detect = BatchDetector("fcos-lite0")

    @daft.method.batch(return_dtype=daft.DataType.list(daft.DataType.string()))
    def names(self, paths: daft.Series) -> list[list[str]]:
        return self.detect({"path": paths.to_pylist()})["names"]

frame = daft.from_pydict({"path": paths})
rows = frame.with_column("names", Detect().names(frame["path"])).to_pylist()
"""

SPARK = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]")
for key, value in {"ui.enabled": "false", "driver.host": "127.0.0.1", "driver.bindAddress": "127.0.0.1"}.items():
    spark = spark.config(f"spark.{key}", value)
frame = spark.getOrCreate().createDataFrame([(path,) for path in paths], "path string")
schema = (
    "path string, width int, height int, boxes array<array<float>>, labels array<int>, names array<string>, "
    "scores array<float>, error string, model string, version string"
)
rows = [row.asDict() for row in frame.METHOD(lambda frames: map(BatchDetector("fcos-lite0"), frames), schema).collect()]
"""


def rows_of(code: str, folder: Path) -> dict[str, dict]:
    """What `code` leaves in `rows`, by path; in a process of its own."""
    around = f"import json\nfrom fcos.scale import BatchDetector\npaths = {PATHS!r}\n{code}\n"
    around += "told = [{k: v.tolist() if hasattr(v, 'tolist') else v for k, v in row.items()} for row in rows]\n"
    around += f"open({str(folder / 'rows.json')!r}, 'w').write(json.dumps(told, default=float))\n"
    (folder / "program.py").write_text(around)
    where = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "PYSPARK_PYTHON": sys.executable}
    program = [sys.executable, str(folder / "program.py")]
    answer = subprocess.run(program, env={**os.environ, **where}, capture_output=True, text=True, timeout=600)
    assert answer.returncode == 0, answer.stderr

    return {row["path"]: row for row in json.loads((folder / "rows.json").read_text())}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "code"),
    [
        *(("ray", RAY.replace("FORMAT", repr(form))) for form in ("pyarrow", "pandas", "numpy")),
        ("daft", DAFT),
        *(("pyspark", SPARK.replace("METHOD", method)) for method in ("mapInPandas", "mapInArrow")),
    ],
    ids=["ray-arrow", "ray-pandas", "ray-numpy", "daft", "spark-pandas", "spark-arrow"],
)
def test_an_engine_gives_the_rows_of_the_detector(package, code, tmp_path):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    want = BatchDetector("fcos-lite0")({"path": PATHS})
    got = rows_of(code, tmp_path)
    assert got.keys() == set(PATHS)
    assert sum(map(len, want["names"])) > 3
    for at, path in enumerate(PATHS):
        for key in ("names", "labels", "error", "width", "height", "model"):
            if key in got[path]:
                assert got[path][key] == want[key][at], (path, key)
        if "boxes" in got[path]:
            flat = [value for box in got[path]["boxes"] for value in box]
            assert flat == pytest.approx([value for box in want["boxes"][at] for value in box], abs=0.01)
            assert got[path]["scores"] == pytest.approx(want["scores"][at], abs=1e-4)
