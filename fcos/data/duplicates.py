"""Images that cannot be read, and images that are there twice, within a split or in two.

dHash: the image as 9 x 8 grey cells, one bit for each pair of neighbours that says which is brighter.
Images whose 64 bits differ in at most `RADIUS` places are found through six bands of the bits: two such
hashes agree in at least one band. A 16 x 16 thumbnail then has to agree too, because plain images (sky,
paper) have chance hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from ..errors import ImageError
from ..machine import cpu_cores
from ..readers import read_bytes
from ..terminal import track
from .image import IMAGE_LIMIT, read_image

RADIUS = 5  # bits of 64
ALIKE = 8.0  # mean difference of the thumbnails, of 255
_SIDE = 16


@dataclass(frozen=True)
class Fingerprints:
    """Of images: hash [N] uint64, thumb [N,16,16] uint8, digest [N] of the file; error [N]: why it cannot
    be read, or ''."""

    hash: np.ndarray
    thumb: np.ndarray
    digest: tuple[str, ...]
    error: tuple[str, ...]


@dataclass(frozen=True)
class Twins:
    """Two images (numbers in the list given) that are one: `same_file` byte for byte, `bits` that differ."""

    first: int
    second: int
    same_file: bool
    bits: int


def fingerprint(paths: Sequence[Path], label: str = "images", *, quiet: bool = False) -> Fingerprints:
    """Read every image once."""
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
        grey = cv2.cvtColor(read_image(data), cv2.COLOR_RGB2GRAY)
    except ImageError as error:
        return 0, np.zeros((_SIDE, _SIDE), np.uint8), "", str(error).replace("the image", str(path), 1)
    thumb = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return dhash(grey), thumb, sha256(data).hexdigest(), ""


def dhash(grey: np.ndarray) -> int:
    """64-bit difference hash of a grey image [H,W] uint8."""
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = (cells[:, 1:] > cells[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_hashes(hashes: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """All pairs [Q,2] (i < j) of hashes [N] uint64 that differ in at most `radius` bits."""
    edges = np.linspace(0, 64, radius + 2).round().astype(int)
    pairs: list[np.ndarray] = []
    for low, high in pairwise(edges.tolist()):
        mask = np.uint64(((1 << high) - 1) ^ ((1 << low) - 1))
        band = hashes & mask
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(band[order][1:] != band[order][:-1]) + 1
        for members in np.split(order, starts):
            for k in range(len(members) - 1):  # against all later ones of the bucket
                others = members[k + 1 :]
                close = others[np.bitwise_count(hashes[others] ^ hashes[members[k]]) <= radius]
                if len(close):
                    pairs.append(np.sort(np.stack((np.full(len(close), members[k]), close), axis=1), axis=1))
    if not pairs:
        return np.zeros((0, 2), np.int64)
    return np.unique(np.concatenate(pairs), axis=0)


def find_twins(prints: Fingerprints) -> list[Twins]:
    """Pairs of readable images that show the same, nearest first."""
    readable = np.array([not e for e in prints.error], bool)
    rows = np.flatnonzero(readable)
    twins = []
    for i, j in rows[near_hashes(prints.hash[rows])].tolist():
        same = prints.digest[i] == prints.digest[j]
        difference = np.abs(prints.thumb[i].astype(np.float32) - prints.thumb[j]).mean()
        if same or difference <= ALIKE:
            bits = int(np.bitwise_count(prints.hash[i] ^ prints.hash[j]))
            twins.append(Twins(i, j, same, bits))
    return sorted(twins, key=lambda t: (not t.same_file, t.bits))


def alike(paths: Sequence[Path | None], *, quiet: bool = False) -> list[list[int]]:
    """Groups of numbers in `paths` that show the same, by `find_twins`; each number is in one group at most."""
    there = [i for i, path in enumerate(paths) if path is not None]
    parent = list(range(len(paths)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    prints = fingerprint([path for path in paths if path is not None], "comparing", quiet=quiet)
    for pair in find_twins(prints):
        parent[root(there[pair.first])] = root(there[pair.second])
    groups: dict[int, list[int]] = {}
    for i in there:
        groups.setdefault(root(i), []).append(i)
    return [members for members in groups.values() if len(members) > 1]
