"""The documentation holds: its links lead somewhere, its commands are commands, its Python imports what there is."""

import ast
import importlib.util
import re
import shlex
import sys
import tomllib

import pytest
import typer
from docpages import FENCE, PAGES, ROOT, name

from fcos.cli import build, main
from fcos.config import Config

LINK = re.compile(r"(?<!\\)!?\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*\]\(([^)\s]+)[^)]*\)")
SETTING = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*=")


def blocks(page, *languages):
    return [text for _, language, text in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def anchors(page):
    """The names that a code host gives to a page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", t) for t in re.findall(r"^#+ +(.+?) *$", text, re.M)]
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        assert target.is_relative_to(ROOT), f"{name(page)}: {link} leaves the repository"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name(page)}: no heading for {link}"


def commands(page):
    """Every `fcos ...` of the page's shell blocks, as words: comments and what pipes away are left out."""
    for text in blocks(page, "", "sh", "bash", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||(?<!\S)\||;", re.sub(r"(^| )#.*", "", line)):
                part = re.sub(r"[<>]\s*\S+|(?<!\S)&(?!\S)", "", part).strip().removeprefix("$ ")
                part = re.sub(r"^([A-Z_]+=\S* )+", "", part)  # variables before the command
                if part.startswith("fcos "):
                    yield part


def parse(command):
    """The error of a command line's form, else None. Values are not looked at: the files need not exist."""
    line = command.replace("[KEY=VALUE ...]", "").replace("[", "").replace("]", "")
    try:
        words = shlex.split(line)[1:]
    except ValueError as error:
        return str(error)
    group = build()
    context = typer.Context(group, info_name="fcos")
    while words and hasattr(group, "commands") and words[0] in group.commands:
        group = group.commands[words.pop(0)]
        context = typer.Context(group, parent=context)
    if hasattr(group, "commands") and words and not words[0].startswith("-"):
        return None if words == ["..."] else f"no command {words[0]!r}"
    words = [w for w in words if w != "..."]
    if words == [] or words[-1] in ("--help", "--version"):
        return None
    try:
        group.make_parser(context).parse_args(list(words))
    except Exception as error:
        return str(getattr(error, "message", error))
    taken = [w for w in words if SETTING.match(w)]
    for key in (w.split("=")[0] for w in taken):
        if "." in key and not setting_exists(key):
            return f"no setting {key!r}"
    return None


def setting_exists(key):
    kind = Config
    for part in key.split("."):
        fields = getattr(kind, "model_fields", {})
        if part not in fields:
            return False
        kind = fields[part].annotation
    return True


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_are_commands(page):
    wrong = {c: why for c in commands(page) if (why := parse(c))}
    assert not wrong, f"{name(page)}: {wrong}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_in_sentences_exist(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    named = re.findall(rf"\b((?:{'|'.join(Config.model_fields)})\.[a-z_0-9.]+)=", text)
    missing = sorted({key for key in named if not setting_exists(key)})
    assert not missing, f"{name(page)}: {missing}"


def test_a_wrong_command_is_seen():
    assert "bogus" in parse("fcos train my_data --bogus 3")
    assert "train.epohcs" in parse("fcos train my_data train.epohcs=3")
    assert parse("fcos frain my_data")
    assert parse("fcos data conjure x")
    assert parse("fcos train DATA [--val VAL] [KEY=VALUE ...]") is None


def names_used(tree):
    """(module, name) of every import, and of every attribute chain that starts at `fcos`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "fcos":
            yield "fcos", node.attr


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name)
def test_python_imports_what_there_is(page):
    for text in blocks(page, "python"):
        for module, attribute in names_used(ast.parse(text)):
            if module.split(".")[0] != "fcos":
                continue
            held = importlib.import_module(module)
            if attribute is not None and not hasattr(held, attribute):
                importlib.import_module(f"{module}.{attribute}")


OWN = re.compile(r"\b((?:tests|fcos|benchmarks|tools|docker)/[\w./*]*\w\.(?:py|yaml|json|html|js))\b")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page):
    named = set(OWN.findall(page.read_text(encoding="utf-8")))
    missing = sorted(n for n in named if not list(ROOT.glob(n)))
    assert not missing, f"{name(page)}: {missing}"


def test_every_page_has_its_place_in_the_site():
    with (ROOT / "zensical.toml").open("rb") as file:
        nav = tomllib.load(file)["project"]["nav"]
    listed = [page for part in nav for entry in next(iter(part.values())) for page in entry.values()]
    assert sorted(listed) == sorted(str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md"))


def test_help_shows_a_page(capsys):
    listed = [line.split()[0] for line in main_says(capsys, ["help"], 0, "tiles ").split("\n\n")[0].splitlines()]
    assert listed[0] == "quickstart"
    pages = [p.relative_to(ROOT / "docs").with_suffix("").as_posix() for p in PAGES[3:]]
    assert sorted(listed) == sorted(p for p in pages if not p.startswith("measurements/"))
    main_says(capsys, ["help", "measurements/bccd"], 0, "# BCCD")
    assert main_says(capsys, ["help", "tiles"], 0, "#") == (ROOT / "docs" / "tiles.md").read_text(encoding="utf-8")
    main_says(capsys, ["help", "tile"], 2, "tiles")


def main_says(capsys, arguments, code, word):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == code
    assert word in (said.err if code else said.out)
    return said.out


def test_one_version_everywhere():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)[1] == told
    assert re.search(r"^## (\S+) - ", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)[1] == told
    assert importlib.import_module("fcos.version").__version__ == told


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the pages are written by Python 3.11")
def test_the_reference_is_that_of_the_code():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for file, page in (("cli", tool.command_line), ("python", tool.python), ("settings", tool.settings)):
        written = (ROOT / "docs" / "reference" / f"{file}.md").read_text()
        assert written == page(), "run python tools/reference.py"
