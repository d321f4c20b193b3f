"""Write docs/reference (command line, public Python names, settings) and docs/method.md from the code itself.

python tools/reference.py            # writes; a test says when it is out of date
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import typer

import fcos
from fcos.cli import build
from fcos.config import Config, describe
from fcos.system.files import write_whole

DOCS = Path(__file__).parents[1] / "docs"
NOT_RUN = {  # examples that tests/test_docs_run.py cannot run, and why
    "fcos serve": "it serves until it is stopped; tests/serving starts it",
    "fcos tune": "it takes the hours that it says; tests/training does it in small",
    "fcos forecast": "it takes the minutes that it says; tests/training does it in small",
    "fcos models push": "it needs an account; tests/zoo has a server of its own",
}
NOTE = "<!-- written by tools/reference.py; edit the code, not this page -->\n"


def pages() -> dict[str, str]:
    """File name to text."""
    return {
        "reference/cli.md": command_line(),
        "reference/python.md": python(),
        "reference/settings.md": settings(),
        "method.md": script("the_paper.py", "images/method"),
    }


def cell(text: str) -> str:
    """`text` inside a table: one line, no bars, no brackets that would be a tag."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|").replace("<", "&lt;")


def command_line() -> str:
    root: Any = build()
    context = typer.Context(root, info_name="fcos")
    parts = [NOTE, "# Command line\n", "Settings (`train.lr=0.01`) may stand behind the options of every verb that has "
             "`--set`; [Settings](settings.md) lists them.\n"]  # fmt: skip
    for name, command in root.commands.items():
        parts += verb(command, context, f"fcos {name}", 2)
    return "\n".join(parts)


def verb(command: Any, parent: Any, path: str, depth: int) -> list[str]:
    context = typer.Context(command, info_name=path.split()[-1], parent=parent)
    parts = [f"{'#' * depth} {path}\n"]
    for text in inspect.cleandoc(command.help or "").replace("\f", "").split("\b"):
        text = text.strip("\n")
        if text.lstrip().startswith("fcos "):  # examples
            why = next((w for start, w in NOT_RUN.items() if text.lstrip().startswith(start)), None)
            text = f"```\n{text}\n```" if why is None else f"<!-- not run: {why} -->\n```\n{text}\n```"
        elif text and all(re.match(r"\S+  +\S", line) for line in text.splitlines()):  # names with what they are
            text = f"```text\n{text}\n```"
        if text:
            parts.append(text + "\n")
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            parts += verb(below, context, f"{path} {name}", depth + 1)
        return parts
    rows = []
    for option in command.get_params(context):
        if option.name == "help" or getattr(option, "hidden", False):
            continue
        if option.param_type_name == "argument":
            names = "`" + "` or `".join((option.metavar or option.name.upper()).strip("[]").split("|")) + "`"
        else:
            names = ", ".join(f"`{o}`" for o in [*option.opts, *option.secondary_opts])
        default = option.default
        turned = not option.opts  # only --no-...
        shown = (
            "" if turned or default in (None, "", False, ()) or option.required or callable(default) else f"`{default}`"
        )
        rows.append(f"| {names} | {cell(shown)} | {cell(getattr(option, 'help', None) or '')} |")
    if rows:
        parts.append("| | default | |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return parts


def python() -> str:
    parts = [
        NOTE,
        "# Python\n",
        "`import fcos` gives these names. Everything else is inside the package and may change.\n",
    ]
    for name in fcos.__all__:
        thing = getattr(fcos, name)
        if isinstance(thing, str):
            parts.append(f"## fcos.{name}\n\nThe version, a text.\n")
            continue
        parts += [f"## fcos.{name}\n", signature(f"fcos.{name}", thing), docstring(thing)]
        if isinstance(thing, type) and not issubclass(thing, Exception):
            for key, member in members(thing):
                parts += [f"### {name}.{key}\n", signature(key, member), docstring(member)]
    return "\n".join(p for p in parts if p)


def members(kind: type) -> list[tuple[str, Any]]:
    """The public methods and properties with a docstring, of the class and of ours above it, in order of writing."""
    seen: dict[str, Any] = {}
    for base in kind.__mro__:
        if not base.__module__.startswith("fcos"):
            continue
        for key, member in vars(base).items():
            if key in seen or (key.startswith("_") and key != "__call__"):
                continue
            raw = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            if isinstance(raw, property) or inspect.isfunction(raw):
                seen[key] = raw
    return [(k, m) for k, m in seen.items() if inspect.getdoc(m)]


def signature(name: str, thing: Any) -> str:
    if isinstance(thing, property):
        return ""
    try:
        shape = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""
    shape = re.sub(r"(: |-> )'([^']*)'", r"\1\2", re.sub(r"^\(self(, )?", "(", shape))
    shape = re.sub(r"<factory>|<[^>]+ object at [^>]+>", "...", shape)
    return f"```text\n{name}{shape}\n```\n" if len(shape) < 400 else f"```text\n{name}(...)\n```\n"


def docstring(thing: Any) -> str:
    """The text, with its `>>>` examples fenced, and what stands under Args and Raises as a list."""
    out: list[str] = []
    inside = False
    for line in (inspect.getdoc(thing) or "").splitlines():
        if line in ("Args:", "Raises:"):
            out += [line, ""]
            continue
        if not inside:
            line = re.sub(r"^ {4}(?=[\w, ]+: )", "- ", re.sub(r"^ {8}(?=\S)", "  ", line))
        starts = line.lstrip().startswith(">>>")
        if starts and not inside:
            out.append("\n```pycon")
            inside = True
        elif inside and not line.strip():
            out.append("```")
            inside = False
        out.append(line if inside else line.replace("<", "&lt;"))
    return "\n".join([*out, *(["```"] if inside else [])]) + "\n"


def settings() -> str:
    intro = """Each is `KEY=VALUE` on the command line, an entry of `--config FILE.yaml`, or a key of `settings=` in
`fcos.train`. Shown are the defaults of `Config()`; a preset has its own (`fcos config fcos-lite0`).
"""
    parts = [NOTE, "# Settings\n", intro]
    section = None
    for key, value, about in describe(Config()):
        head = key.partition(".")[0] if "." in key else "general"
        if head != section:
            parts.append(f"\n## {head}\n\n| setting | default | |\n|---|---|---|")
            section = head
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        parts.append(f"| `{key}` | {f'`{cell(shown)}`' if shown else ''} | {cell(about)} |")
    return "\n".join(parts) + "\n"


def script(name: str, images: str) -> str:
    """A script of docs/notebooks as a page: its text, its code, and under each cell the image that it saves."""
    parts = [NOTE]
    for cell in re.split(r"^# %%", (DOCS / "notebooks" / name).read_text(encoding="utf-8"), flags=re.M)[1:]:
        head, _, body = cell.partition("\n")
        if "markdown" in head:
            parts.append(re.sub(r"^# ?", "", body, flags=re.M).strip() + "\n")
            continue
        drawn = [f"![{file}]({images}/{file})\n" for file in re.findall(r'"(\d-[\w-]+\.jpg)"', body)]
        code = "```python\n" + body.strip() + "\n```\n"
        setup = ['<details markdown="1">', "<summary>The code in front of the steps</summary>\n", code, "</details>\n"]
        parts += [*drawn, code] if drawn else setup
    return "\n".join(parts)


if __name__ == "__main__":
    (DOCS / "reference").mkdir(exist_ok=True)
    for name, text in pages().items():
        write_whole(DOCS / name, text)
        sys.stdout.write(f"{DOCS / name}\n")
