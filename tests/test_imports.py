"""Imports run one way (docs: the file map in README), and `import fcos` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fcos"

# module or folder -> what of the package it may import when it is itself imported
BASE = {"types", "errors", "config", "files"}
MATHS = BASE | {"boxes", "points", "assign", "losses", "decode"}
MAY = {
    "types": set(),
    "errors": set(),
    "config": {"errors"},
    "presets": {"config", "errors"},
    "files": {"errors"},
    "boxes": {"config", "types"},
    "points": {"config", "types"},
    "assign": {"boxes", "config", "types"},
    "losses": {"boxes", "config", "types"},
    "decode": {"boxes", "config", "points", "types"},
    "lite": set(),
    "backbones": {"config", "errors", "lite"},
    "model": {"backbones", "config", "types"},
    "download": {"errors"},
    "zoo": BASE | {"presets", "download", "model", "backbones"},
    "data": BASE | {"boxes", "data"},
    "draw": BASE | {"data"},
    "monitor": MATHS,
    "detector": BASE | {"zoo", "decode", "folding", "points", "data", "export"},
}


def imports_of(path: Path) -> set[str]:
    """Names of the package's modules imported at module level (late imports are the point of being late)."""
    tree = ast.parse(path.read_text())
    found = set()
    guarded = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    depth = len(path.relative_to(PACKAGE).parts) - 1
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in guarded | inside or not node.level:
            continue
        if node.level == depth + 1:  # from the package's root
            names = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
        else:  # from its own folder
            names = [path.relative_to(PACKAGE).parts[0]]
        found.update(names)
    return found


@pytest.mark.parametrize("name", sorted(MAY))
def test_imports_run_one_way(name):
    files = sorted((PACKAGE / name).rglob("*.py")) if (PACKAGE / name).is_dir() else [PACKAGE / f"{name}.py"]
    for file in files:
        extra = imports_of(file) - MAY[name]
        assert not extra, f"{file.name} must not import {sorted(extra)}"


def test_nothing_below_the_programs_imports_a_program():
    programs = {"train", "evaluate", "study", "convert", "serve", "cli", "predict", "results"}
    core = ("types", "config", "presets", "boxes", "points", "assign", "losses", "decode", "model", "zoo", "detector")
    for name in core:
        assert not imports_of(PACKAGE / f"{name}.py") & programs


def test_import_fcos_is_light():
    code = (
        "import sys, fcos; heavy = {'torch', 'timm', 'matplotlib', 'onnx', 'cv2', 'pycocotools'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
