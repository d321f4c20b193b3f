"""Which font can write a text: DejaVu Sans, which comes with matplotlib, else one of the system that has its signs."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ..errors import ImageWarning

# parts of file names that are tried first: fonts of many scripts
_WIDE = ("cjk", "notosans", "pingfang", "hiragino", "msyh", "yugoth", "malgun", "nirmala", "wqy", "droidsansfallback",
         "arialuni")  # fmt: skip


def font_file(text: str) -> Path | None:
    """The file of a font for this text, DejaVu Sans where that has all of it; None where there is no file at all. Where
    no font has all of it, a warning says so once, and the signs come out as boxes."""
    usual = _dejavu()
    signs = frozenset(c for c in text if not c.isascii() and c.isprintable())
    if not signs or usual is None or signs <= _has(usual):
        return usual
    return _other(signs) or usual


def families(texts: Iterable[str]) -> list[str]:
    """The fonts of a plot, by their names in matplotlib: DejaVu Sans, and one that has what it has not."""
    from matplotlib import font_manager

    path = font_file("".join(texts))
    if path in (None, _dejavu()):
        return ["DejaVu Sans"]
    font_manager.fontManager.addfont(path)
    return ["DejaVu Sans", font_manager.FontProperties(fname=path).get_name()]


@lru_cache(1)
def _dejavu() -> Path | None:
    """Found without importing matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if path.is_file():
            return path
    return None


@lru_cache(64)
def _other(signs: frozenset[str]) -> Path | None:
    """The first font of the system that has all of `signs`."""
    found = next((path for path in _system() if signs <= _has(path)), None)
    if found is None:
        some = "".join(sorted(signs)[:8])
        warnings.warn(f"no font here can write {some}: boxes stand for it; install one, such as Noto Sans CJK",
                      ImageWarning, 2)  # fmt: skip
    return found


@lru_cache(1)
def _system() -> tuple[Path, ...]:
    from matplotlib.font_manager import findSystemFonts

    def place(path: str) -> tuple[int, bool, str]:
        name = Path(path).name.lower()
        return min((i for i, part in enumerate(_WIDE) if part in name), default=len(_WIDE)), "bold" in name, name

    found = [path for path in findSystemFonts() if "lastresort" not in path.lower()]  # that draws boxes for all signs
    return tuple(map(Path, sorted(found, key=place)))


@lru_cache(4)  # tens of thousands each
def _has(path: Path) -> frozenset[str]:
    """The signs that a font file can write; none where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(str(path)).get_charmap()))
    except (RuntimeError, OSError, ValueError):
        return frozenset()
