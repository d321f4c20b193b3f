"""The scripts of benchmarks/ and tools/ are run by hand: what they take from the package is there."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("tools/*.py")])


def lacking(tree: ast.Module) -> list[str]:
    """Names of the package that a script imports, or takes out of a module of it, and that are not there."""
    modules: dict[str, ModuleType] = {}
    missing = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and "fcos" in [alias.name for alias in node.names]:
            modules["fcos"] = importlib.import_module("fcos")
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("fcos"):
            continue
        source = importlib.import_module(str(node.module))
        for alias in node.names:
            if not hasattr(source, alias.name):
                try:
                    importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    missing.append(f"{node.module}.{alias.name}")
                    continue
            found = getattr(source, alias.name)
            if isinstance(found, ModuleType):
                modules[alias.asname or alias.name] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            if module is not None and not hasattr(module, node.attr):
                missing.append(f"{module.__name__}.{node.attr}")
    return missing


def test_lacking_by_hand():
    script = (
        "from fcos.training.planning import rules, gone\nfrom fcos.boxes import iou_of_nothing\nrules.LEAST\nrules.MOST"
    )
    assert lacking(ast.parse(script)) == [
        "fcos.training.planning.gone",
        "fcos.boxes.iou_of_nothing",
        "fcos.training.planning.rules.MOST",
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_what_a_script_takes_from_the_package_is_there(script):
    assert lacking(ast.parse(script.read_text(encoding="utf-8"))) == []
