"""Lists of the images of a split: which images their lines mean."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fcos.data.formats.common.lists import Namesakes, named_in

folders = st.lists(st.sampled_from("ab"), max_size=4).map(tuple)


@given(folders, st.dictionaries(st.integers(0, 9), folders, max_size=6))
def test_the_nearest_are_those_of_all_compared_one_by_one(asked, there):
    """Folders are compared from the last on: those that both have must be the same."""
    shared = {
        thing: (min(len(asked), len(own)), len(asked) == len(own))
        for thing, own in there.items()
        if all(a == b for a, b in zip(reversed(asked), reversed(own), strict=False))
    }
    expected = [thing for thing, rank in shared.items() if rank == max(shared.values())]
    assert sorted(Namesakes(there).nearest(asked)) == sorted(expected)


def test_many_images_of_one_name_are_told_apart_at_once():
    """The frames of thousands of cameras: to compare each line with each of them took minutes."""
    names = [f"cam{k}/0001.jpg" for k in range(20_000)]
    lists = {"train": names[:15_000], "val": [f"/content/data/{name}" for name in names[15_000:]]}
    found = named_in(lists, names, Path("."))
    assert found == {"train": list(range(15_000)), "val": list(range(15_000, 20_000))}
