"""Imports run one way, from the paper up to the command line, late ones included; `import fcos` stays light."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import fcos

PACKAGE = Path(fcos.__file__).parent

# From bottom to top. A module may import from its own room and from those in front of it. "paper" is what lies
# directly in fcos/; a module named in full stands where its name does, not where its room does.
ORDER = [
    "fcos.version",
    "fcos.errors",
    "system",
    "paper",
    "network",
    "convert",
    "export",
    "zoo",
    "data",
    "fcos.export.check",
    "inference",
    "tracking",
    "evaluation",
    "show",
    "analysis",
    "training",
    "search",
    "labels",
    "demo",
    "study",
    "bench",
    "scale",
    "fcos.zoo.pack",
    "fcos.export.judging",
    "fcos.export.job",
    "fcos.export.named",
    "serving",
    "cli",
]
# Inside the paper, from bottom to top: its words, its maths.
WORDS = ["version", "errors", "foreign", "kept", "detections", "types", "changes", "config", "presets"]
MATHS = ["overlap", "boxes", "points", "assign", "losses", "decode"]
# The arrows that run upward, each late, each with its reason; none of them closes a circle.
ALLOWED = {
    ("fcos.detections", "fcos.show.draw"),  # Detections.draw
    ("fcos.detections", "fcos.inference.sources"),  # Detections.crop
    # Detector.export: an export is judged by AP, and so by evaluation and data sets, which are above the Detector
    ("fcos.inference.detector", "fcos.export.job"),
    ("fcos.__main__", "fcos.cli"),
}


def modules() -> dict[str, Path]:
    return {
        ".".join(("fcos", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


def imports_of(name: str, path: Path, known: dict[str, Path]) -> dict[str, bool]:
    """Modules of the package that `name` imports anywhere, and whether one of those imports is at the top."""
    tree = ast.parse(path.read_text())
    only_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{module}.{a.name}" if f"{module}.{a.name}" in known else module for a in node.names]
        else:
            continue
        for target in targets:
            if target in known and target not in (name, "fcos"):
                found[target] = found.get(target, False) or node.col_offset == 0
    return found


@cache
def graph() -> dict[str, dict[str, bool]]:
    known = modules()
    return {name: imports_of(name, path, known) for name, path in known.items() if name != "fcos"}


def rank(name: str) -> int:
    if name in ORDER:
        return ORDER.index(name)
    parts = name.split(".")
    return ORDER.index(parts[1] if parts[1] in ORDER else "paper")


def test_every_room_is_in_the_order():
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert rooms <= set(ORDER), rooms - set(ORDER)
    flat = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert flat == set(WORDS) | set(MATHS), flat ^ (set(WORDS) | set(MATHS))


def test_imports_run_one_way_late_ones_included():
    upward = [
        f"{name} -> {target}"
        for name, targets in graph().items()
        for target in targets
        if rank(target) > rank(name) and (name, target) not in ALLOWED
    ]
    assert not upward, "these imports run upward: " + ", ".join(sorted(upward))


def test_an_allowed_arrow_exists_and_is_late():
    found = graph()
    for name, target in ALLOWED - {("fcos.__main__", "fcos.cli")}:
        assert found[name].get(target) is False, f"{name} -> {target}"


def test_the_paper_is_read_from_words_to_maths():
    order = {f"fcos.{name}": k for k, name in enumerate([*WORDS, *MATHS])}
    for name, targets in graph().items():
        if name in order:
            above = [t for t in targets if order.get(t, -1) > order[name]]
            assert not above, f"{name} must not import {above}"


def test_no_modules_import_each_other_in_a_circle():
    found = graph()
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        state[name] = 1
        for target in found.get(name, {}):
            assert state.get(target) != 1, " -> ".join((*path[path.index(target) :], name, target))
            if target not in state:
                visit(target, (*path, target))
        state[name] = 2

    for name in found:
        if name not in state:
            visit(name, (name,))


@pytest.mark.parametrize("name", ["analysis.doctor", "study.versus", "cli.study"])
def test_the_graph_sees_late_imports(name):
    """The test of the test: what these modules import is not nothing."""
    assert graph()[f"fcos.{name}"]


def test_no_module_carries_the_name_of_a_public_function():
    flat = {p.stem for p in PACKAGE.glob("*.py")} | {p.name for p in PACKAGE.iterdir() if p.is_dir()}
    assert not flat & set(fcos.__all__)


def test_public_names_stay_what_they_are():
    """`fcos.train` was a function at the first access and a module at the second."""
    before = {name: getattr(fcos, name) for name in fcos.__all__}
    for module in pkgutil.walk_packages(fcos.__path__, "fcos."):
        if module.name != "fcos.__main__":
            importlib.import_module(module.name)
    for name, value in before.items():
        assert getattr(fcos, name) is value
        assert type(value).__name__ != "module", name


@pytest.mark.parametrize("start", ["import fcos", "from fcos.cli import build; build()"])
def test_start_is_light(start):
    """`fcos --help` and every TAB wait for the second."""
    code = (
        "import sys; heavy = {'torch', 'timm', 'matplotlib', 'onnx', 'cv2', 'pycocotools'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", f"{start}; {code}"], check=True)


def test_detecting_does_not_import_what_counts_flops():
    """It brings all of triton: 80 MB, and a tenth of the time that `fcos predict` takes for an image."""
    code = "import sys, fcos.cli.predict_run; assert 'torch.utils.flop_counter' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_test_file_imports_another():
    """What several share lies in a module of its own: one that is named test_ is collected again where it is read."""
    taken = []
    for path in Path(__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            taken += [f"{path.name}: {name}" for name in names if name.rpartition(".")[2].startswith("test_")]
    assert not taken
