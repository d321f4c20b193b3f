"""`fcos forecast`: which runs it does, what it says and draws, and, slowly, the whole of it."""

import json

import pytest
from tiny import fcos, make_shapes

from fcos.data.open import open_splits
from fcos.errors import DataError
from fcos.training.forecast import RUNS, Scored, measured


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_splits(make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 40, "val": 8}))


def test_the_runs_take_the_time_in_all_and_a_part_holds_the_smaller_ones(shapes, tmp_path):
    asked = []

    def learn(name, part, minutes):
        asked.append((name, {r.file_name for r in part.records}, minutes))
        return Scored(0.6 - 0.2 * (len(part) / 40) ** -0.5 * minutes**-0.3, 0.02)

    found = measured(shapes, learn, 2 * RUNS, (15.0, 40))
    assert sum(minutes for *_, minutes in asked) == pytest.approx(2 * RUNS)
    assert [len(files) for _, files, _ in asked] == [40, 40, 12, 22, 40]
    assert asked[2][1] < asked[3][1] < asked[4][1]
    assert len({name for name, *_ in asked}) == 5
    truth = 0.2 * 2**-0.3 * (1 - 2**-0.5)
    assert found.more_images.low <= truth <= found.more_images.high
    assert found.more_time.low <= 0.2 * (2**-0.3 - 17**-0.3) <= found.more_time.high
    first, second = found.text().splitlines()
    assert first.startswith("after 2 minutes on 40 images: AP 43.")
    assert second.startswith("15 more minutes: +")
    assert "; 40 more images: +" in second
    assert found.write(tmp_path).stat().st_size > 5000
    assert json.loads((tmp_path / "forecast.json").read_text())["more_images"]["images"] == 40


def test_without_images_to_judge_by_or_with_too_few_it_says_so(shapes):
    with pytest.raises(DataError, match="needs images to judge by"):
        measured({"train": shapes["train"]}, lambda *_: 0.5, 10, (15, 200))
    few = {"train": shapes["train"].subset(range(20)), "val": shapes["val"]}
    with pytest.raises(DataError, match="20 images are too few"):
        measured(few, lambda *_: 0.5, 10, (15, 200))


def test_bad_lines(capsys, tmp_path):
    assert fcos(capsys, "forecast")[0] == 2
    code, _, err = fcos(capsys, "forecast", tmp_path / "absent")
    assert (code, err.count("\n")) == (2, 1)
    assert "absent" in err


@pytest.mark.slow
def test_the_whole_of_it(capsys, tmp_path):
    data = make_shapes(tmp_path / "data", {"train": 40, "val": 8})
    small = ["data.size=64", "data.max_size=96", "data.train_sizes=[64]", "train.plots=false", "data.workers=0"]
    code, out, err = fcos(capsys, "forecast", data, "--minutes", "6.6", "--out", tmp_path / "f", *small)
    assert code == 0, err
    assert "more minutes: +" in out
    assert (tmp_path / "f" / "forecast.png").is_file()
