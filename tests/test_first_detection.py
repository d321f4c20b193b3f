"""The notebooks run from top to bottom, and show what they promise; as Jupyter shows it, without Jupyter."""

import json
import os
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def run(name: str, folder: Path) -> dict[str, list[dict]]:
    """Source of each code cell -> its outputs, after a run in `folder`."""
    pytest.importorskip("onnxscript", reason="pip install -e '.[onnx]'")
    nbformat = pytest.importorskip("nbformat", reason="pip install -e '.[dev]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install -e '.[dev]'")
    pytest.importorskip("ipykernel", reason="pip install -e '.[dev]'")
    from jupyter_client.kernelspec import KernelSpec

    (file,) = (p for p in NOTEBOOKS if p.stem == name)
    notebook = nbformat.read(file, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}})
    client.create_kernel_manager()
    own = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]  # this environment, no other kernel
    client.km._kernel_spec = KernelSpec(argv=own, display_name="own", language="python")
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # `!fcos` is this environment's too
    client.execute(env={**os.environ, "PATH": path})
    return {"".join(c.source): c.outputs for c in notebook.cells if c.cell_type == "code"}


def of_cell(shown: dict[str, list[dict]], words: str) -> tuple[set[str], str]:
    """The kinds of what the cell with these words shows, and its text."""
    (outputs,) = (o for source, o in shown.items() if words in source)
    kinds = {kind for o in outputs for kind in o.get("data", {"text": None})}
    return kinds, "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in outputs)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook):
    for cell in cells(notebook):
        assert not cell.get("outputs")
        if cell["cell_type"] == "code":
            source = [line for line in "".join(cell["source"]).splitlines() if not line.startswith("!")]
            compile("\n".join(source), "cell", "exec")


@pytest.mark.slow
def test_first_detection_runs_from_top_to_bottom(tmp_path):
    shown = run("first_detection", tmp_path)
    for words in ("detections = model(photo)", "coffee.jpg", "fcos.explain", 'fcos.load("first.onnx")'):
        assert "image/png" in of_cell(shown, words)[0], words
    for words in ("fcos.train", "evaluate(result.folder)", "ci=True"):
        assert "text/html" in of_cell(shown, words)[0], words
    assert "epoch 2.0 loss" in of_cell(shown, "fcos.train")[1]
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
    assert (tmp_path / "first.onnx").is_file()


@pytest.mark.slow
def test_own_data_runs_from_top_to_bottom(tmp_path):
    shown = run("own_data", tmp_path)
    for words in ("Image.open", "model(photo", "fcos.explain", 'fcos.load("own.onnx")'):
        assert "image/png" in of_cell(shown, words)[0], words
    for words in ("fcos.train", "ci=True"):
        assert "text/html" in of_cell(shown, words)[0], words
    assert "48 images" in of_cell(shown, "data.summary()")[1]
    for words, told in (("fcos data convert", "48 images"), ("fcos doctor", "doctor.html"), ("--out why", "missed")):
        assert told in of_cell(shown, words)[1], words
    for made in ("my_data", "sheet.jpg", "doctor.html", "runs/own/report.html", "why", "own.onnx"):
        assert (tmp_path / made).exists(), made
