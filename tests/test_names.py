"""The manner of the code that a program can see: how much a function asks of its callers."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fcos"
MOST = 5

# (file, function): why it takes more
EXEMPT = {
    ("detections.py", "__init__"): "the fields of Detections, as a type checker is to know them",
    ("losses.py", "forward"): "autograd's signature",
    ("export/graph.py", "nms"): "an operator of a graph: tensors and numbers, no values of ours",
    ("export/graph.py", "_"): "its shapes, under the same signature",
    ("export/formats/onnx.py", "_nms"): "the same operator in ONNX",
    ("inference/detector.py", "stream"): "the public method: keywords",
    ("training/program.py", "train"): "the public function: keywords, each with a page in the docs",
    ("evaluation/coco.py", "evaluate"): "the public function: keywords",
    ("labels/checking.py", "check"): "the public function: keywords",
    ("labels/proposing.py", "propose"): "the public function: keywords",
    ("system/progress.py", "track"): "a progress bar; what it shows, by name",
}
VERBS = {"cli"}  # the function of a verb lists the options of the verb


def long_functions(source: str) -> dict[str, int]:
    """Functions with more than MOST arguments and how many; self and cls are not counted, * and ** as one each."""
    result = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            asked = node.args
            names = [a.arg for a in (*asked.posonlyargs, *asked.args, *asked.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"])) + bool(asked.vararg) + bool(asked.kwarg)
            if count > MOST:
                result[node.name] = count
    return result


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a, b, c, d, e): ...", {}),
        ("def f(a, b, c, d, e, f): ...", {"f": 6}),
        ("class A:\n    def f(self, a, b, c, *, d, e): ...", {}),
        ("async def f(a, b, c, d, /, *e, **f): ...", {"f": 6}),
        ("def f(a):\n    def g(a, b, c, d, *, e, f, g=1): ...", {"g": 7}),
    ],
)
def test_arguments_are_counted(source, expected):
    assert long_functions(source) == expected


def test_no_function_takes_more_than_five_arguments():
    long = {
        (path.relative_to(PACKAGE).as_posix(), name): count
        for path in sorted(PACKAGE.rglob("*.py"))
        for name, count in long_functions(path.read_text(encoding="utf-8")).items()
    }
    rooms = {key: count for key, count in long.items() if key[0].partition("/")[0] not in VERBS}
    assert {key for key in rooms if key not in EXEMPT} == set(), "group what belongs together in a value"
    gone = [key for key in EXEMPT if key not in long]
    assert not gone, "no exemption is needed any more"
