"""Images that cannot be read, and images that are there twice, within a split or in two.

dHash: the image as 9 x 8 grey cells, one bit for each pair of neighbours that says which is brighter.
Images whose 64 bits differ in at most `RADIUS` places are found through six bands of the bits: two such
hashes agree in at least one band. A 16 x 16 thumbnail then has to agree too, because plain images (sky,
paper) have chance hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import ImageError
from ..system.progress import track
from ..system.readers import read_bytes
from ..system.threads import cpu_cores
from .images.reading import IMAGE_LIMIT, read_image

RADIUS = 5  # bits of 64
ALIKE = 8.0  # mean difference of the thumbnails, of 255
_SIDE = 16
_PAIRS = 1 << 22  # that are compared at once
_EDGES = np.linspace(0, 64, RADIUS + 2).round().astype(int).tolist()
_BANDS = [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(_EDGES)]  # masks of the bits


@dataclass(frozen=True)
class Fingerprints:
    """Of images: hash [N] uint64, thumb [N,16,16] uint8, digest [N] of the file; error [N]: why it cannot
    be read, or ''."""

    hash: np.ndarray
    thumb: np.ndarray
    digest: tuple[str, ...]
    error: tuple[str, ...]


class Twins(NamedTuple):
    """Pairs of images (numbers in the list given, first < second) that are one, [Q] each: `same_file` byte for byte,
    `bits` that differ."""

    first: np.ndarray
    second: np.ndarray
    same_file: np.ndarray
    bits: np.ndarray


def fingerprint(paths: Sequence[Path], label: str = "images", *, quiet: bool = False) -> Fingerprints:
    """Read every image once. Warns (ImageWarning), naming the file, of each that is damaged."""
    with ThreadPoolExecutor(cpu_cores()) as pool:
        rows = list(track(pool.map(_fingerprint, paths), len(paths), label, unit="images", quiet=quiet))
    return Fingerprints(
        np.array([r[0] for r in rows], np.uint64),
        np.array([r[1] for r in rows], np.uint8).reshape(-1, _SIDE, _SIDE),
        tuple(r[2] for r in rows),
        tuple(r[3] for r in rows),
    )


def _fingerprint(path: Path) -> tuple[int, np.ndarray, str, str]:
    try:
        data = read_bytes(path, IMAGE_LIMIT, ImageError)
        grey = cv2.cvtColor(read_image(data, str(path)), cv2.COLOR_RGB2GRAY)
    except ImageError as error:
        return 0, np.zeros((_SIDE, _SIDE), np.uint8), "", str(error)
    thumb = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return dhash(grey), thumb, sha256(data).hexdigest(), ""


def dhash(grey: np.ndarray) -> int:
    """64-bit difference hash of a grey image [H,W] uint8."""
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = (cells[:, 1:] > cells[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def find_groups(prints: Fingerprints) -> list[np.ndarray]:
    """Groups of two or more images that show the same, as numbers into `prints`; images that cannot be read are left
    out. Likeness is passed on: if A is like B and B like C, all three are one group."""
    rows = np.flatnonzero([not e for e in prints.error])
    hashes, thumbs = prints.hash[rows], prints.thumb[rows].reshape(-1, _SIDE**2)
    looks = np.concatenate([hashes[:, None].view(np.uint8), thumbs], axis=1)
    _, first, of = np.unique(looks, axis=0, return_index=True, return_inverse=True)
    sets = _Sets(first[of.ravel()].tolist())  # blank images by the thousand are one from the start
    first.sort()
    for number, band in enumerate(_BANDS):
        for some in _equal(hashes[first] & band):
            members = first[some]
            _join(members, hashes[members], thumbs[members], _BANDS[:number], sets)
    return [rows[members] for members in sets.members() if len(members) > 1]


class _Sets:
    """Numbers from 0 on, each in one set; sets are joined by giving the root of one another parent. `parent`: that of
    each number at first, itself where it is a root."""

    def __init__(self, parent: list[int]) -> None:
        self.parent = parent

    def root(self, i: int) -> int:
        """The number that stands for the set of `i`."""
        parent = self.parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def members(self) -> list[list[int]]:
        """The sets, each in rising order, by their first numbers."""
        found: dict[int, list[int]] = {}
        for i in range(len(self.parent)):
            found.setdefault(self.root(i), []).append(i)
        return list(found.values())


def _equal(values: np.ndarray) -> list[np.ndarray]:
    """Positions of equal values: a rising array for each value that is there more than once."""
    order = np.argsort(values, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(values[order])) + 1)
    return [part for part in parts if len(part) > 1]


def _join(
    members: np.ndarray, hashes: np.ndarray, thumbs: np.ndarray, earlier: Sequence[np.uint64], sets: _Sets
) -> None:
    """Join the sets of `members` [K] that show the same, by their hashes [K] and thumbnails [K,256]. Those that agree
    in one of the `earlier` bands have been compared."""
    groups = np.array([sets.root(i) for i in members.tolist()])
    joined = 0  # the member behind the last that joined others to its group
    for k in range(len(members) - 1):  # with all later ones that are not of its group yet
        if k in (0, joined) and (groups[k:] == groups[k]).all():
            return
        differ = hashes[k + 1 :] ^ hashes[k]
        near = (np.bitwise_count(differ) <= RADIUS) & (groups[k + 1 :] != groups[k])
        if not near.any():
            continue
        for band in earlier:
            near &= differ & band != 0
        others = np.flatnonzero(near) + k + 1
        if len(others):
            others = others[_same_thumbs(thumbs[k, None], thumbs[others])[0]]
        for other in np.unique(groups[others]):
            groups[groups == other] = groups[k]
            sets.parent[other] = int(groups[k])
            joined = k + 1


def find_twins(prints: Fingerprints) -> Iterator[Twins]:
    """All pairs of readable images that show the same, some at a time: of n alike frames there are n (n - 1) / 2."""
    digests = np.unique(np.array(prints.digest), return_inverse=True)[1]
    for members in find_groups(prints):
        hashes, thumbs = prints.hash[members], prints.thumb[members].reshape(-1, _SIDE**2)
        step = max(1, _PAIRS // len(members))
        for start in range(0, len(members), step):
            some = slice(start, start + step)
            bits = np.bitwise_count(hashes[some, None] ^ hashes[start:])
            i, j = np.nonzero(np.triu((bits <= RADIUS) & _same_thumbs(thumbs[some], thumbs[start:]), 1))
            first, second = members[start + i], members[start + j]
            yield Twins(first, second, digests[first] == digests[second], bits[i, j])


def _same_thumbs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether thumbnails [A,256] and [B,256] agree, [A,B]: the sum of the differences is at most 256 * ALIKE. It lies
    between the Euclidean distance and 16 times that, which is quick to have and decides for most."""
    limit = ALIKE * a.shape[1]
    x, y = a.astype(np.float32), b.astype(np.float32)
    square = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    slack = 64  # above what float32 rounds
    same: np.ndarray = square <= limit**2 / a.shape[1] - slack
    i, j = np.nonzero(~same & (square <= limit**2 + slack))
    for start in range(0, len(i), _PAIRS // a.shape[1]):
        one, two = i[start : start + _PAIRS // a.shape[1]], j[start : start + _PAIRS // a.shape[1]]
        same[one, two] = np.abs(a[one].astype(np.int16) - b[two]).sum(1) <= limit
    return same


def alike(paths: Sequence[Path | None], *, quiet: bool = False) -> list[list[int]]:
    """Groups of numbers in `paths` that show the same, by `find_groups`; each number is in one group at most."""
    there = [i for i, path in enumerate(paths) if path is not None]
    prints = fingerprint([path for path in paths if path is not None], "comparing", quiet=quiet)
    return [[there[i] for i in members] for members in find_groups(prints)]
