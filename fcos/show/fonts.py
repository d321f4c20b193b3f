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

_told: set[str] = set()  # signs that nobody needs to be told of again


def font_file(text: str) -> Path | None:
    """The file of a font for this text, DejaVu Sans where that has all of it; None where there is no file at all. Where
    no font has all of it, the signs that are missing come out as boxes, and a warning names them once."""
    usual, signs = _dejavu(), _signs(text)
    if usual is None or not signs or signs <= _has(usual):  # ASCII needs no look into the file, nor matplotlib
        return usual
    found = _best(signs) or usual  # PIL writes a text with one font
    _tell_missing(signs - _has(found))
    return found


def families(texts: Iterable[str]) -> list[str]:
    """The fonts of a plot, by their names in matplotlib: DejaVu Sans, and those that have what it has not."""
    from matplotlib import font_manager

    names = ["DejaVu Sans"]
    usual = _dejavu()
    if usual is None:
        return names
    missing = _signs("".join(texts)) - _has(usual)
    while missing and (path := _best(missing)) is not None:
        font_manager.fontManager.addfont(path)
        names.append(font_manager.FontProperties(fname=path).get_name())
        missing -= _has(path)
    _tell_missing(missing)
    return names


def _signs(text: str) -> frozenset[str]:
    return frozenset(c for c in text if not c.isascii() and c.isprintable())


def _tell_missing(signs: frozenset[str]) -> None:
    new = sorted(signs - _told)
    _told.update(new)
    if new:
        some = "".join(new[:8])
        warnings.warn(f"no font here can write {some}: boxes stand for it; install one, such as Noto Sans CJK",
                      ImageWarning, 2)  # fmt: skip


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
def _best(signs: frozenset[str]) -> Path | None:
    """The font with most of `signs`, of equals the first, DejaVu Sans before those of the system; None where none has
    any."""
    best, most = None, 0
    for path in filter(None, (_dejavu(), *_system())):
        count = len(signs & _has(path))
        if count > most:
            best, most = path, count
        if most == len(signs):
            break
    return best


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
