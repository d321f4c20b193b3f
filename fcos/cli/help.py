"""`fcos help`: the pages of the documentation, in the terminal."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from . import complete

_LOGS = "measurements/"


def _topics(incomplete: str) -> list[str]:
    return complete.among(*in_order(documentation()))(incomplete)


def command(
    topic: Annotated[
        str | None, typer.Argument(autocompletion=_topics, help="A page, such as quickstart or tiles.")
    ] = None,
) -> None:
    """Read a page of the documentation; without TOPIC, list all."""
    from ..errors import FcosError, did_you_mean

    folder = documentation()
    pages = in_order(folder)
    if topic is None:
        shown = {name: path for name, path in pages.items() if not name.startswith(_LOGS)}
        width = max(map(len, shown))
        for name, path in shown.items():
            typer.echo(f"{name:<{width}}  {title(path)}")
        logs = ", ".join(name.removeprefix(_LOGS) for name in pages if name not in shown)
        typer.echo("\nfcos help NAME shows a page; fcos VERB --help the options of a verb.")
        typer.echo(f"How the numbers were measured: fcos help {_LOGS}NAME, NAME being\n{textwrap.fill(logs, 78)}")
        return
    name = topic.strip("/").removeprefix("docs/").removesuffix(".md")
    if name not in pages:
        raise FcosError(f"there is no page {topic!r}; {did_you_mean(name, pages, 'fcos help lists them')}")
    # comments are for those who write the pages
    comment = re.compile(r"^<!--.*?-->\n|<!--.*?-->", re.DOTALL | re.MULTILINE)
    text = comment.sub("", pages[name].read_text(encoding="utf-8")).lstrip()
    if not sys.stdout.isatty():
        typer.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    os.environ.setdefault("LESS", "-R")  # or less shows the codes of colours as text
    console = Console()
    with console.pager(styles=True):
        console.print(Markdown(text))


def documentation() -> Path:
    """The folder of the pages: inside an installed package, beside it in a checkout."""
    from ..system.files import ASSETS

    inside = ASSETS / "docs"
    return inside if inside.is_dir() else ASSETS.parents[1] / "docs"


def in_order(folder: Path) -> dict[str, Path]:
    """The pages by name: first those that index.md links to, in its order, which is that of what people do."""
    index = folder / "index.md"
    linked = re.findall(r"\]\(([\w/-]+\.md)", index.read_text(encoding="utf-8")) if index.is_file() else []
    paths = dict.fromkeys([*(folder / name for name in linked), *sorted(folder.rglob("*.md"))])
    return {p.relative_to(folder).with_suffix("").as_posix(): p for p in paths if p.is_file()}


def title(path: Path) -> str:
    """The first heading of a page."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), "")
