"""One HTML page without outside files: headings, text, tables and pictures inside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#22262e;max-width:1060px;margin:32px auto;padding:0 20px}
h1{font-size:24px}h2{font-size:18px;margin-top:36px}img{max-width:100%}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:3px 14px 3px 0;text-align:right;border-bottom:1px solid #e5e7eb;vertical-align:top}
td:first-child,th:first-child,td.l,th.l{text-align:left}th{color:#6b7280;font-weight:500}
table.facts td,table.facts th{text-align:left;white-space:pre-wrap;overflow-wrap:anywhere}
table.facts th{white-space:nowrap}
figure{margin:28px 0}figcaption{color:#4b5563;font-size:14px}details{margin:14px 0}summary{cursor:pointer}
nav{margin:14px 0}a{color:#1d4ed8}
pre{background:#f6f7f9;padding:10px 14px;border-radius:6px;overflow-x:auto}
.serious{color:#b91c1c;font-weight:600}.warning{color:#b45309}.note{color:#6b7280}
table+img,table+figure,img+img{margin-top:24px}
@media(prefers-color-scheme:dark){
body{color:#e5e7eb;background:#15181d}th,figcaption,.note{color:#9ca3af}td,th{border-color:#374151}
pre{background:#1f242c}a{color:#93c5fd}.serious{color:#f87171}.warning{color:#fbbf24}
img{background:#fff;border-radius:6px}}
"""


class Page:
    """Build a page from top to bottom, then `write` it."""

    def __init__(self, title: str) -> None:
        self.parts = [f"<h1>{html.escape(title)}</h1>"]
        self.title = title
        self._headings: list[str] = []
        self._contents: int | None = None  # where among the parts

    def heading(self, text: str) -> None:
        self._headings.append(text)
        self.parts.append(f"<h2 id='part-{len(self._headings)}'>{html.escape(text)}</h2>")

    def contents(self) -> None:
        """Links to all headings of the page, those that follow included."""
        self._contents = len(self.parts)
        self.parts.append("")

    def text(self, text: str) -> None:
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        self.parts.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> None:
        """A table whose first `left` columns are flush left; a first cell that names a level of finding is coloured."""

        def row(cells: Sequence[object], tag: str) -> str:
            kind = str(cells[0]) if str(cells[0]) in ("serious", "warning", "note") else ""
            inner = "".join(
                f"<{tag} class='{'l ' if i < left else ''}{kind if i == 0 else ''}'>{html.escape(str(c))}</{tag}>"
                for i, c in enumerate(cells)
            )
            return f"<tr>{inner}</tr>"

        self.parts.append(f"<table>{row(head, 'th')}{''.join(row(r, 'td') for r in rows)}</table>")

    def facts(self, rows: Sequence[tuple[str, object]]) -> None:
        """Names on the left, values on the right, lines of a value kept."""
        inner = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows)
        self.parts.append(f"<table class='facts'>{inner}</table>")

    def folded(self, title: str, text: str) -> None:
        """Text in fixed width that opens with a click."""
        self.parts.append(f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>")

    def file(self, path: Path, caption: str) -> bool:
        """A PNG or JPEG file with a caption; False, and nothing on the page, when there is none."""
        if not path.is_file():
            return False
        kind = "png" if path.suffix == ".png" else "jpeg"
        self.parts.append("<figure>")
        self._image(kind, path.read_bytes(), caption)
        self.parts.append(f"<figcaption>{html.escape(caption)}</figcaption></figure>")
        return True

    def figure(self, figure: Figure) -> None:
        """A matplotlib figure as PNG."""
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        self._image("png", stream.getvalue())

    def image(self, pixels: np.ndarray) -> None:
        """An RGB array [H,W,3] uint8 as JPEG."""
        _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
        self._image("jpeg", data.tobytes())

    def _image(self, kind: str, data: bytes, alt: str = "") -> None:
        inside = base64.b64encode(data).decode()
        self.parts.append(f"<img alt='{html.escape(alt)}' src='data:image/{kind};base64,{inside}'>")

    def write(self, path: str | Path) -> Path:
        if self._contents is not None:
            links = (f"<a href='#part-{n}'>{html.escape(text)}</a>" for n, text in enumerate(self._headings, 1))
            self.parts[self._contents] = f"<nav>{' · '.join(links)}</nav>"
        head = "<!doctype html><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        head += f"<title>{html.escape(self.title)}</title><style>{_STYLE}</style>"
        return write_whole(path, head + "\n".join(self.parts) + "\n")
