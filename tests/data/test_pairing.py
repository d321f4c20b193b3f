"""Names in annotation files find their images, whatever folders stand in them, in a time that grows with the names."""

import random
from collections import Counter
from pathlib import Path

import pytest

from fcos.data.formats.common import pairing
from fcos.data.formats.common.pairing import Images

ROOT = Path("/r")


def base_of(path, name):
    """The folder of an image without what the name repeats of it, from the end on."""
    folders, asked = list(path.relative_to(ROOT).parts[:-1]), name.split("/")[:-1]
    while folders and asked and folders[-1].casefold() == asked[-1].casefold():
        folders.pop(), asked.pop()
    return tuple(folders)


def plainly(paths, names):
    """`Images.locate` by all pairs of names and images, round by round, for bases of no split."""
    options = {}
    for k, name in enumerate(names):
        last = Path(name)
        same = [p for p in paths if p.name.casefold() == last.name.casefold()]
        same = same or [p for p in paths if p.stem.casefold() == last.stem.casefold()]
        options[k] = [(base_of(p, name), p) for p in same]
    found = [None] * len(names)

    def most(votes):
        return max(votes, key=lambda base: (votes[base], -len(base), base), default=None)

    best = most(
        Counter(
            base
            for base, _, _ in {
                (base, str(p.parent).casefold(), Path(names[k]).name.casefold())
                for k, choice in options.items()
                for base, p in choice
            }
        )
    )
    for k, choice in list(options.items()):
        mine = [p for base, p in choice if base == best]
        exact = [p for p in mine if p.name == Path(names[k]).name]
        if mine:
            found[k] = exact[0] if exact else mine[0] if len(mine) == 1 else None
            del options[k]
            continue
        depth = names[k].count("/")
        whole = [(base, p) for base, p in choice if len(p.parts) - 3 - len(base) == depth]
        options[k] = whole or choice
    while options:
        for k, choice in list(options.items()):
            if len(choice) < 2:
                found[k] = choice[0][1] if choice else None
                del options[k]
        best = most(Counter(base for choice in options.values() for base in {base for base, _ in choice}))
        options = {k: [(base, p) for base, p in choice if base != best] for k, choice in options.items()}
    return found


def test_images_are_found_as_by_all_pairs():
    rng = random.Random(0)
    folders, files = ["a", "A", "b", "x", "y"], ["1.jpg", "1.png", "1.JPG", "2.jpg", "3.jpg"]

    def some(most):
        return "/".join([*(rng.choice(folders) for _ in range(rng.randint(0, most))), rng.choice(files)])

    for _ in range(1500):
        paths = sorted({ROOT / some(3) for _ in range(rng.randint(1, 12))})
        names = [some(3) for _ in range(rng.randint(1, 9))]
        assert Images(ROOT, paths).locate(names, ROOT / "a.json", None) == plainly(paths, names), (paths, names)


def test_frames_of_videos_in_two_places_are_their_own():
    """Every video has a 1.jpg. Those of the smaller part are not looked for among the frames of the larger."""
    videos = [f"one/v{k}" for k in range(5)] + [f"two/v{k}" for k in range(5, 9)]
    paths = [ROOT / video / f"{k}.jpg" for video in videos for k in range(3)]
    names = ["/".join(p.parts[-2:]) for p in paths]
    assert Images(ROOT, paths).locate(names, ROOT / "a.json", None) == paths


@pytest.mark.parametrize("way", ["frames", "frames in a folder that is not there", "bare names", "two copies"])
def test_the_work_grows_with_the_names(way, monkeypatch):
    """Not with the pairs of names and folders."""
    looks = Counter()
    base = pairing._Hits._base

    def counted(self, image, asked):
        looks["bases"] += 1
        return base(self, image, asked)

    monkeypatch.setattr(pairing._Hits, "_base", counted)

    def work(videos):
        looks.clear()
        if way.startswith("frames"):
            paths = [ROOT / f"v{v}" / f"{k}.jpg" for v in range(videos) for k in range(10)]
            above = "gone/" if way != "frames" else ""
            names = [above + "/".join(p.parts[-2:]) for p in paths]
        else:
            copies = ("a", "b") if way == "two copies" else ("a",)
            paths = [
                ROOT / copy / f"v{v}" / f"{v}-{k}.jpg" for copy in copies for v in range(videos) for k in range(10)
            ]
            names = sorted({p.name for p in paths})
        found = Images(ROOT, paths).locate(names, ROOT / "a.json", None)
        assert [p.name for p in found] == [Path(name).name for name in names]
        return looks["bases"]

    once, twice = work(20), work(40)
    assert twice <= max(2.2 * once, 1)
