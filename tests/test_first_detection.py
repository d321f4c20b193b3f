"""The notebook runs from top to bottom, and shows what it promises; as Jupyter shows it, without Jupyter."""

import json
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "first_detection.ipynb"


def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_the_notebook_is_kept_without_outputs():
    for cell in cells():
        assert not cell.get("outputs")
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), "cell", "exec")


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    pytest.importorskip("onnxscript", reason="pip install -e '.[onnx]'")
    nbformat = pytest.importorskip("nbformat", reason="pip install -e '.[dev]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install -e '.[dev]'")
    pytest.importorskip("ipykernel", reason="pip install -e '.[dev]'")
    from jupyter_client.kernelspec import KernelSpec

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}})
    client.create_kernel_manager()
    own = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]  # this environment, no other kernel
    client.km._kernel_spec = KernelSpec(argv=own, display_name="own", language="python")
    client.execute()
    shown = {"".join(c.source): c.outputs for c in notebook.cells if c.cell_type == "code"}

    def kinds(words: str) -> set[str]:
        (outputs,) = (o for source, o in shown.items() if words in source)
        return {kind for o in outputs for kind in o.get("data", {"text": o.get("text")})}

    for words in ("detections = model(photo)", "coffee.jpg", "fcos.explain", 'fcos.load("first.onnx")'):
        assert "image/png" in kinds(words), words
    for words in ("fcos.train", "evaluate(result.folder)", "ci=True"):
        assert "text/html" in kinds(words), words
    (trained,) = (o for source, o in shown.items() if "fcos.train" in source)
    told = [o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in trained]
    assert any("epoch 2.0 loss" in text for text in told), told
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
    assert (tmp_path / "first.onnx").is_file()
