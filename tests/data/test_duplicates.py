"""Images that show the same: hashes, thumbnails, groups and pairs."""

import threading

import cv2
import numpy as np
import pytest
from photos import photo, write

from fcos.data import duplicates
from fcos.data.duplicates import Fingerprints, alike, dhash, find_groups, find_twins, fingerprint


def test_dhash_compares_neighbours():
    rising = np.tile(np.arange(0, 90, 10, np.uint8), (8, 1))
    assert dhash(rising) == 2**64 - 1
    assert dhash(rising[:, ::-1].copy()) == 0


def prints_of(hashes, thumbs):
    """Fingerprints of images whose files differ."""
    names = tuple(str(k) for k in range(len(hashes)))
    return Fingerprints(
        np.array(hashes, np.uint64), np.array(thumbs, np.uint8).reshape(-1, 16, 16), names, ("",) * len(names)
    )


def listed(prints):
    """All pairs, as first, second, same file, bits."""
    return sorted(
        (i, j, same, bits)
        for t in find_twins(prints)
        for i, j, same, bits in zip(*map(np.ndarray.tolist, t), strict=True)
    )


@pytest.mark.parametrize("most", [1 << 22, 50])
def test_twins_are_all_pairs_within_the_radius_with_like_thumbnails(most, monkeypatch):
    monkeypatch.setattr(duplicates, "_PAIRS", max(most, 256))
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    flips = [np.uint64(sum(1 << int(b) for b in rng.choice(64, k, replace=False))) for k in range(8) for _ in range(5)]
    hashes = np.concatenate([base, base ^ np.array(flips, np.uint64), base[:1], base[:3] ^ np.uint64(1)])
    # steps of noise around the limit, and of brightness: a mean difference of 8 and less, or of more
    thumbs = rng.integers(90, 110, (len(hashes), 1, 1)) + rng.integers(-9, 9, (len(hashes), 16, 16))
    thumbs[-1] = thumbs[2] + 8
    thumbs[-2] = thumbs[1] + np.where(np.arange(256).reshape(16, 16) == 0, 9, 8)
    prints = prints_of(hashes, thumbs)
    plain = [
        (i, j, False, int(hashes[i] ^ hashes[j]).bit_count())
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if int(hashes[i] ^ hashes[j]).bit_count() <= 5 and np.abs(thumbs[i] - thumbs[j]).mean() <= 8
    ]
    assert listed(prints) == plain
    assert 20 < len(plain) < 40
    assert (2, len(hashes) - 1) in [row[:2] for row in plain]
    assert (1, len(hashes) - 2) not in [row[:2] for row in plain]
    assert listed(prints_of([], [])) == []


def test_groups_are_chains_of_twins():
    """Each image is like the next, the first not like the last; one that only shares the hash stays alone."""
    thumbs = [np.full(256, 40 + 6 * k) for k in range(6)] + [np.full(256, 200)]
    prints = prints_of([7] * 7, thumbs)
    assert [members.tolist() for members in find_groups(prints)] == [[0, 1, 2, 3, 4, 5]]
    assert [row[:2] for row in listed(prints)] == [(k, k + 1) for k in range(5)]


def test_the_work_grows_with_the_images_that_are_alike(monkeypatch):
    """Not with their pairs: frames of a camera that stands still are all alike."""
    compared = []
    honest = duplicates._same_thumbs
    monkeypatch.setattr(duplicates, "_same_thumbs", lambda a, b: compared.append(len(a) * len(b)) or honest(a, b))
    rng = np.random.default_rng(0)

    def work(count):
        compared.clear()
        flips = np.array([1 << int(b) for b in rng.integers(0, 64, count)], np.uint64)
        groups = find_groups(prints_of(np.uint64(12345) ^ flips, rng.integers(60, 64, (count, 256))))
        assert [len(members) for members in groups] == [count]
        return sum(compared)

    once, twice = work(400), work(800)
    assert twice <= 2.2 * once


def test_blank_images_are_not_compared_with_each_other(monkeypatch):
    """Black and white ones share their hash, so each black one was compared with all of the white ones."""
    compared = []
    honest = duplicates._same_thumbs
    monkeypatch.setattr(duplicates, "_same_thumbs", lambda a, b: compared.append(len(a) * len(b)) or honest(a, b))
    shades = np.array([0, 255, 255, 0] * 100)
    groups = find_groups(prints_of([0] * 400, np.repeat(shades[:, None], 256, axis=1)))
    assert [members.tolist() for members in groups] == [np.flatnonzero(shades == shade).tolist() for shade in (0, 255)]
    assert sum(compared) < 10


def test_twins_are_found_through_recompression_but_flat_images_are_not(tmp_path):
    paths = [
        write(tmp_path / "a.png", photo(1)),
        write(tmp_path / "a.jpg", photo(1), cv2.IMWRITE_JPEG_QUALITY, 40),
        write(tmp_path / "b.png", photo(2)),
        write(tmp_path / "grey.png", np.full((128, 128, 3), 60, np.uint8)),
        write(tmp_path / "pale.png", np.full((128, 128, 3), 200, np.uint8)),
    ]
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[0].read_bytes())
    (tmp_path / "cut.jpg").write_bytes(paths[1].read_bytes()[:200])
    prints = fingerprint([*paths, copy, tmp_path / "cut.jpg", tmp_path / "none.png"])
    found = {(i, j): same for i, j, same, _ in listed(prints)}
    assert found == {(0, 1): False, (0, 5): True, (1, 5): False}
    assert [bool(e) for e in prints.error] == [False] * 6 + [True, True]
    assert "cut.jpg" in prints.error[6]


def test_fingerprints_use_every_core(monkeypatch, tmp_path):
    """Four images that wait for each other: only four threads at once get past the barrier."""
    together = threading.Barrier(4, timeout=20)
    honest = duplicates._fingerprint

    def waiting(path):
        together.wait()
        return honest(path)

    monkeypatch.setattr(duplicates, "cpu_cores", lambda: 4)
    monkeypatch.setattr(duplicates, "_fingerprint", waiting)
    prints = fingerprint([write(tmp_path / f"{k}.png", photo(k)) for k in range(4)])
    assert prints.error == ("",) * 4


def test_images_that_are_alike_are_grouped(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(4):
        pixels = cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), (64, 64))
        for name, value in ((f"{i}.png", pixels), (f"{i}-again.png", np.clip(pixels.astype(int) + 3, 0, 255))):
            if i != 3 or name == "3.png":
                cv2.imwrite(str(tmp_path / name), value.astype(np.uint8))
                paths.append(tmp_path / name)
    assert alike([None, *paths]) == [[1, 2], [3, 4], [5, 6]]
    assert alike([]) == []
