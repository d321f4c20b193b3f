"""Names in annotation files find their images, whatever folders stand in them, in a time that grows with the names."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from fcos.data.formats.common import pairing
from fcos.data.formats.common.pairing import Images
from fcos.data.open import open_dataset

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
        mine = [p for p in mine if len(p.parts) == max(len(q.parts) for q in mine)]
        alike = {p: spelt_alike(p, names[k]) for p in mine}
        mine = [p for p in mine if alike[p] == max(alike.values())]
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
    return [None if p is not None and another(k, p, found, names) else p for k, p in enumerate(found)]


def another(k, path, found, names):
    """Whether name `k` means another image than `path`, by what the other names for it say."""
    rivals = [names[j].split("/") for j, p in enumerate(found) if p == path and j != k]
    mine, image = names[k].split("/"), list(path.relative_to(ROOT).parts)
    exact = [name for name in rivals if name[-1] == image[-1]]
    if exact and mine[-1] != image[-1]:
        return True
    rivals = exact if mine[-1] == image[-1] else rivals
    depth = same_folders(image, mine)
    deeper = max((same_folders(image, name) for name in rivals), default=0)
    if deeper > depth:  # no folder of this test is one that says nothing
        return True
    whole = any(same_folders(image, name) == len(name) - 1 == depth for name in rivals)
    return whole and len(mine) - 1 > depth == 0


def same_folders(image, name):
    """How many folders at the end of both are the same, whatever the case of their letters."""
    pairs = list(zip(reversed(image[:-1]), reversed(name[:-1]), strict=False))
    return next((n for n, (a, b) in enumerate(pairs) if a.casefold() != b.casefold()), len(pairs))


def spelt_alike(path, name):
    """How many parts at the end of both are the same to the letter."""
    both = list(zip(reversed(path.parts), reversed(name.split("/")), strict=False))
    return next((k for k, (a, b) in enumerate(both) if a != b), len(both))


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


@pytest.mark.parametrize(
    "way",
    ["frames", "frames in a folder that is not there", "frames of which half are missing", "bare names", "two copies"],
)
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
            above = "gone/" if way.endswith("not there") else ""
            names = [above + "/".join(p.parts[-2:]) for p in paths]
        else:
            copies = ("a", "b") if way == "two copies" else ("a",)
            paths = [
                ROOT / copy / f"v{v}" / f"{v}-{k}.jpg" for copy in copies for v in range(videos) for k in range(10)
            ]
            names = sorted({p.name for p in paths})
        there = paths[: len(paths) // 2] if way.endswith("missing") else paths
        found = Images(ROOT, there).locate(names, ROOT / "a.json", None)
        if way.endswith("missing"):
            assert found == [*there, *([None] * len(there))]
        else:
            assert [p.name for p in found] == [Path(name).name for name in names]
        return looks["bases"]

    once, twice = work(20), work(40)
    assert twice <= max(2.2 * once, 1)


def _set(folder, names, shown=None):
    """A COCO set of these image names, each image with a colour of its own; `shown`: those whose files are there."""
    for number, name in enumerate(names):
        if shown is None or name in shown:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (number * 20, 0, 0)).save(folder / name)
    images = [{"id": k, "file_name": name, "width": 40, "height": 30} for k, name in enumerate(names, 1)]
    rows = [{"id": k, "image_id": k, "category_id": 1, "bbox": [1, 1, 5, 5]} for k in range(1, len(names) + 1)]
    told = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "train.json").write_text(json.dumps(told))
    return {r.file_name: r.path for r in open_dataset(folder / "train.json").records}


@pytest.mark.parametrize(
    "names",
    [
        ("cam/1.jpg", "1.jpg", "2.jpg"),
        ("v1/1.jpg", "v2/1.jpg", "1.jpg"),
        ("day1/cam/1.jpg", "cam/1.jpg"),
        ("A/t.png", "a/t.png"),
    ],
)
def test_an_image_in_a_folder_and_one_above_it_are_two(tmp_path, names):
    assert _set(tmp_path, names) == {name: tmp_path / name for name in names}


def test_an_image_of_another_folder_does_not_stand_for_one_that_is_missing(tmp_path):
    found = _set(tmp_path, ("cam/1.jpg", "1.jpg", "2.jpg"), ("1.jpg", "2.jpg"))
    assert found["1.jpg"] == tmp_path / "1.jpg"
    assert found.get("cam/1.jpg") is None


@pytest.mark.parametrize(
    ("names", "there", "expected"),
    [
        (("cam/1.jpg", "1.jpg"), "images/cam/1.jpg", ("images/cam/1.jpg", None)),
        (("1.jpg", "1.JPG"), "1.jpg", ("1.jpg", None)),
        (("a.jpg", "a.png"), "a.png", (None, "a.png")),
        (("images/0.jpg", "0.jpg"), "images/0.jpg", ("images/0.jpg", "images/0.jpg")),
        (("train/a.jpg", "/home/me/c1/train/a.jpg"), "train/a.jpg", ("train/a.jpg", "train/a.jpg")),
    ],
)
def test_several_names_for_one_image(names, there, expected):
    found = Images(ROOT, [ROOT / there]).locate(names, ROOT, None)
    assert found == [None if name is None else ROOT / name for name in expected]


def test_images_of_two_cameras_in_one_folder_stay_two(tmp_path):
    found = _set(tmp_path, ("1.jpg",))
    assert list(found) == ["1.jpg"]
    told = json.loads((tmp_path / "train.json").read_text())
    told["images"] = [{**told["images"][0], "id": k, "file_name": f"cam{k}/1.jpg"} for k in (1, 2)]
    told["annotations"] = [{**told["annotations"][0], "id": k, "image_id": k} for k in (1, 2)]
    (tmp_path / "train.json").write_text(json.dumps(told))
    assert [len(r.boxes) for r in open_dataset(tmp_path / "train.json").records] == [1, 1]
