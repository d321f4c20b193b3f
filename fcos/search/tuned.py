"""What a search came to: in words for a terminal, and as a page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..show.axes import INK, LINES, MUTED, new_figure, style
from ..show.page import Page
from ..system.environment import COMMAND
from ..system.files import whole_set, write_whole
from ..system.terminal import clock, decimal, json_ready, plural, table
from .space import sort_ranges

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = 5  # trials in the terminal's table; the page has all
_BLUE, _RED = "#2563eb", "#dc2626"
_COLUMNS = 3  # of the small plots


@dataclass(frozen=True)
class Tried:
    """A trial. state: "whole", "given up" (others were better at the same time), "failed" (`error` says why),
    "running", "waiting", or "cut off" with its process. ap: of its best weights, of the last look where it was given
    up. values: what was searched. looks: AP by quarter of its time. interval: of the AP, as result.json has it."""

    number: int
    state: str
    ap: float
    values: Mapping[str, Any]
    looks: Mapping[int, float]
    interval: Mapping[str, float | None] | None = None
    command: str = ""
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Tuned:
    """A search: `about` is what it was begun with, `importances` the share of each setting in what decided, 0..1,
    empty where too few trials were whole to say."""

    folder: Path
    about: Mapping[str, Any]
    tried: tuple[Tried, ...]
    importances: Mapping[str, float]

    @property
    def whole(self) -> list[Tried]:
        """The trials that came to their end, the best first."""
        return sorted((t for t in self.tried if t.state == "whole"), key=lambda t: (-t.ap, t.number))

    @property
    def best(self) -> Tried | None:
        """The best trial, if any came to its end."""
        return next(iter(self.whole), None)

    @property
    def first(self) -> Tried | None:
        """The one with the plan's own settings."""
        start = self.about.get("start")
        return min((t for t in self.whole if t.values == start), key=lambda t: t.number, default=None)

    def headline(self) -> str:
        """The result in a sentence or two."""
        best, first = self.best, self.first
        if best is None:
            return "No trial has come to its end yet."
        line = f"AP {best.ap:.3f}{_between(best)} in trial {best.number}."
        if first is not None and first != best:
            line += f" The plan's own settings had {first.ap:.3f} (trial {first.number})."
        elif first == best:
            line += " Those are the plan's own settings: nothing that was tried is better."
        return line

    def caution(self) -> str:
        """What the number is not."""
        images = plural(int(self.about.get("judged", 0)), "image")
        return (
            f"The best of {plural(len(self.whole), 'trial')} on the same {images} looks better than it is: judge it on "
            "images that chose nothing (fcos eval --split test)."
        )

    def mattered(self) -> str:
        """What decided, the most first."""
        if not self.importances:
            return "too few whole trials to say"
        return ", ".join(f"{key} {100 * share:.0f} %" for key, share in self.importances.items())

    def longer(self) -> str:
        """The command that learns for an hour with the best trial's settings."""
        best = self.best
        if best is None:
            return ""
        chosen = [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
                  for key, value in best.values.items()]  # fmt: skip
        return shlex.join(["fcos", "train", *self.about["words"], "--minutes", "60", *self.about["fixed"], *chosen])

    def text(self) -> str:
        """For a terminal."""
        lines = [f"{self._counted()}: {self.headline()}"]
        if self.best is not None:
            keys = list(self.importances or self.best.values)
            rows = [(t.number, f"{t.ap:.3f}", *(_show(t.values.get(k)) for k in keys)) for t in self.whole[:_ROWS]]
            lines += [table(("trial", "AP", *keys), rows), f"mattered  {self.mattered()}", self.caution()]
            lines += [f"best:     {self.best.command}", f"longer:   {self.longer()}"]
        return "\n".join([*lines, f"report:   {self.folder / 'tune.html'}"])

    def _counted(self) -> str:
        count = {state: sum(t.state == state for t in self.tried) for state in ("given up", "failed", "running")}
        parts = [plural(len(self.whole), "whole trial"), *(f"{n} {state}" for state, n in count.items() if n)]
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        best = self.best
        return {
            "trials": [{**vars(t), "ap": json_ready(t.ap)} for t in self.tried],
            "best": None if best is None else best.number,
            "importances": dict(self.importances),
            "command": None if best is None else best.command,
        }

    # ------------------------------------------------------------------ the page

    def write(self) -> Path:
        """tune.html, and command.txt with the best trial's command."""
        page = self._page()
        with whole_set():
            if self.best is not None:
                write_whole(self.folder / COMMAND, f"{self.best.command}\n")
            return page.write(self.folder / "tune.html")

    def _page(self) -> Page:
        page = Page("Search of settings")
        page.contents()
        page.heading("Result")
        page.text(f"{self._counted()}. {self.headline()}")
        if self.best is not None:
            page.text(self.caution())
            page.code(f"{self.best.command}\n{self.longer()}")
        page.heading("What mattered")
        if self.importances:
            page.text("The share of each setting in what set the good trials apart from the others (fANOVA).")
            page.figure(_bars(self.importances))
        else:
            page.text("Too few whole trials to say.")
        if len(self.whole) > 1:
            page.text("Each setting by itself: a dot is a whole trial, the red one the best.")
            page.figure(self._each())
        if self.whole:
            page.heading("How it went")
            page.figure(self._course())
        page.heading("All trials")
        keys = list(self.about["space"])
        rows = [[t.number, t.state, decimal(t.ap), clock(t.seconds), *(_show(t.values.get(k)) for k in keys)]
                for t in self.tried if t.state != "waiting"]  # fmt: skip
        page.table(("trial", "", "AP", "time", *keys), rows, left=2)
        errors = [f"trial {t.number}: {t.error}" for t in self.tried if t.error]
        if errors:
            page.folded("errors", "\n".join(errors))
        page.heading("The search")
        facts = [("trials of", f"{self.about['minutes']:g} minutes"), ("model", self.about["model"])]
        facts += [("stays", " ".join(self.about["fixed"]) or "as planned"), *self.about["space"].items()]
        page.facts(facts)
        return page

    def _course(self) -> Figure:
        """AP by trial, and the best so far."""
        figure = new_figure(5.8, 3.6)
        axes = figure.add_subplot()
        style(axes, "AP by trial", x="trial", y="AP")
        order = sorted(self.whole, key=lambda t: t.number)
        seen = np.array([t.ap for t in order])
        numbers = [t.number for t in order]
        early = [t for t in self.tried if t.state == "given up" and not math.isnan(t.ap)]
        if early:
            axes.plot([t.number for t in early], [t.ap for t in early], "x", color=MUTED, label="given up")
        axes.plot(numbers, seen, "o", color=_BLUE, markersize=5, label="whole")
        axes.step(numbers, np.maximum.accumulate(seen), where="post", color=INK, linewidth=1.4, label="best so far")
        axes.locator_params(axis="x", integer=True)
        corner = (1, 1)  # above the axes: inside it would hide trials
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=3, loc="lower right", bbox_to_anchor=corner)
        return figure

    def _each(self) -> Figure:
        """AP over each setting."""
        space, _ = sort_ranges([f"{key}={what}" for key, what in self.about["space"].items()])
        keys = list(self.importances) + [k for k in space if k not in self.importances]
        lines = math.ceil(len(keys) / _COLUMNS)
        figure = new_figure(10.2, 2.6 * lines)
        for place, key in enumerate(keys, start=1):
            axes = figure.add_subplot(lines, _COLUMNS, place)
            style(axes, key, y="AP" if place % _COLUMNS == 1 else "")
            known = [t for t in reversed(self.whole) if key in t.values]  # the best last, on top
            x, text = _places([t.values[key] for t in known])
            colors = [_RED if t == self.best else _BLUE for t in known]
            axes.scatter(x, [t.ap for t in known], s=22, c=colors, alpha=0.85, linewidths=0)
            if text:
                axes.set_xticks(range(len(text)), text)
                axes.set_xlim(-0.5, len(text) - 0.5)
            elif getattr(space[key], "log", False):
                ticks = _ticks(min(x), max(x))
                axes.set_xscale("log")
                axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
                axes.minorticks_off()
        return figure


def _places(values: list[Any]) -> tuple[list[float], list[str]]:
    """Where on an axis, and the names of its places where they are no numbers on a scale (choices)."""
    if all(isinstance(v, int | float) for v in values):
        return [float(v) for v in values], []
    names = sorted({str(v) for v in values}, key=_order)
    return [float(names.index(str(v))) for v in values], names


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between them, every third of it where those are many."""
    known = [m * 10.0**k for k in range(-12, 13) for m in (1, 2, 5) if low <= m * 10.0**k <= high]
    return known if len(known) <= 5 else [t for t in known if f"{t:e}".startswith("1")]


def _order(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return math.inf, text


def _bars(shares: Mapping[str, float]) -> Figure:
    figure = new_figure(5.8, 0.6 + 0.34 * len(shares))
    axes = figure.add_subplot()
    style(axes, "")
    keys = list(shares)[::-1]
    axes.barh(keys, [shares[k] for k in keys], color=_BLUE, height=0.6)
    axes.grid(axis="y", color=LINES, linewidth=0)
    axes.tick_params(axis="y", colors=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    return figure


def _between(tried: Tried) -> str:
    known = tried.interval
    if not known or known.get("low") is None:
        return ""
    return f" (95 % interval {known['low']:.3f} to {known['high']:.3f})"


def _show(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)
