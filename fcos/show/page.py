"""One HTML page without outside files: headings, text, tables and images inside it."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..system.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root{color-scheme:light dark;--ink:#22262e;--muted:#6b7280;--lines:#e5e7eb;--ground:#fff;--soft:#f6f7f9;--link:#1d4ed8;
--bad:#b91c1c;--warn:#b45309}
@media(prefers-color-scheme:dark){:root{--ink:#e5e7eb;--muted:#9ca3af;--lines:#374151;--ground:#15181d;--soft:#1f242c;
--link:#93c5fd;--bad:#f87171;--warn:#fbbf24}img{background:#fff;border-radius:6px}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:1060px;margin:32px auto;
padding:0 20px}
h1{font-size:24px;overflow-wrap:anywhere}h2{font-size:18px;margin-top:36px}img{max-width:100%}
.wide{overflow-x:auto;margin:14px 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:3px 14px 3px 0;text-align:right;border-bottom:1px solid var(--lines);vertical-align:top}
td:first-child,th:first-child,td.l,th.l{text-align:left}td.l{overflow-wrap:anywhere;min-width:6em}
th{color:var(--muted);font-weight:500}
table.facts td,table.facts th{text-align:left;white-space:pre-wrap;overflow-wrap:anywhere}
table.facts th{white-space:nowrap}
figure{margin:28px 0}figcaption{color:var(--muted);font-size:14px}details{margin:14px 0}summary{cursor:pointer}
.plot svg{display:block;width:100%;height:auto;max-width:560px}
.plot.big{overflow-x:auto}.plot.big svg{min-width:860px;max-width:1020px}
nav{margin:14px 0}a{color:var(--link)}
pre{background:var(--soft);padding:10px 14px;border-radius:6px;overflow-x:auto}
.tiles{display:flex;flex-wrap:wrap;gap:12px;align-items:flex-end}.tiles div{width:168px}
.tiles img{display:block;max-height:168px;margin:0 auto}
.tiles small{display:block;overflow-wrap:anywhere;text-align:center}
.serious,.warning,.note{white-space:nowrap}
.serious{color:var(--bad);font-weight:600}.warning{color:var(--warn)}.note{color:var(--muted)}
@media(max-width:600px){figure.big{overflow-x:auto}figure.big>img{max-width:none;width:860px}
.tiles{gap:8px}.tiles div{width:calc(50% - 4px)}
body{margin:16px auto;padding:0 14px}td,th{padding-right:9px}
table.facts th,table.facts td{display:block;border:0;padding:0}table.facts td{padding-bottom:8px}}
"""
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_WIDE = 1200  # pixels of an image whose letters a telephone would make too small: it scrolls there
_FITS = 6.0  # inches of a plot that a telephone shows whole
# what a plot is drawn in, and what the page's style knows it by, light or dark
_INKS = (("#22262e", "var(--ink)"), ("#6b7280", "var(--muted)"), ("#e5e7eb", "var(--lines)"))


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

        cells = f"{row(head, 'th')}{''.join(row(r, 'td') for r in rows)}"
        self.parts.append(f"<div class='wide'><table>{cells}</table></div>")

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
        data = path.read_bytes()
        drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        wide = drawn is not None and 8 * drawn.shape[1] > _WIDE
        self.parts.append("<figure class='big'>" if wide else "<figure>")
        self._image(kind, data, caption)
        self.parts.append(f"<figcaption>{html.escape(caption)}</figcaption></figure>")
        return True

    def figure(self, figure: Figure) -> None:
        """A matplotlib figure, in the page's own colours: INK, MUTED and LINES of show.plots are light in the dark."""
        import matplotlib

        stream = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
            figure.savefig(stream, format="svg", transparent=True, metadata=_NO_METADATA)
        drawn = stream.getvalue()
        drawn = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", drawn[drawn.index("<svg") :])  # a page knows SVG by itself
        for color, name in _INKS:
            drawn = drawn.replace(color, name)
        kind = "plot big" if figure.get_figwidth() > _FITS else "plot"  # letters keep their size; a telephone scrolls
        self.parts.append(f"<figure class='{kind}'>{drawn}</figure>")

    def tiles(self, images: Sequence[np.ndarray], titles: Sequence[str], caption: str) -> None:
        """Small RGB arrays [h,w,3] uint8 beside each other, as many as fit, each over its title."""
        self.parts.append(f"<figure><figcaption>{html.escape(caption)}</figcaption><div class='tiles'>")
        for pixels, title in zip(images, titles, strict=True):
            _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
            self.parts.append("<div>")
            self._image("jpeg", data.tobytes(), title)
            self.parts.append(f"<small>{html.escape(title)}</small></div>")
        self.parts.append("</div></figure>")

    def _image(self, kind: str, data: bytes, alt: str = "") -> None:
        inside = base64.b64encode(data).decode()
        self.parts.append(f"<img alt='{html.escape(alt)}' src='data:image/{kind};base64,{inside}'>")

    def write(self, path: str | Path) -> Path:
        if self._contents is not None:
            links = (f"<a href='#part-{n}'>{html.escape(text)}</a>" for n, text in enumerate(self._headings, 1))
            self.parts[self._contents] = f"<nav>{' · '.join(links)}</nav>"
        head = (
            "<!doctype html><meta charset='utf-8'><meta name='viewport' content='width=device-width,initial-scale=1'>"
        )
        head += f"<title>{html.escape(self.title)}</title><style>{_STYLE}</style>"
        return write_whole(path, head + "\n".join(self.parts) + "\n")
