"""The rules from facts and pace to settings, and the plan they make, by cases worked by hand."""

import shlex
from dataclasses import replace

import pytest

from fcos.cli.common import sort_words
from fcos.presets import resolve
from fcos.training.equal_command import command
from fcos.training.planning.facts import Facts
from fcos.training.planning.plan import Plan, TooShort, ending, make_plan
from fcos.training.planning.rules import (
    Choice,
    Pace,
    Time,
    batch_for,
    cache_for,
    flips_for,
    in_memory,
    mixing_for,
    model_for,
    rate_for,
    size_for,
    tile_for,
)

CELLS = Facts(205, 3000, 3, 416, 0.10, 0.25, 0.5, upright=False, handed=False, judged=87)
CHOSEN = {
    "model": Choice("model", "fcos-lite0", ""),
    "batch": Choice("batch", "4", ""),
    "size": Choice("size", "320", ""),
}


def gigabytes(name, images):
    """Made up: a gigabyte an image, two and three of the larger ones; of any other network nobody knows."""
    return {"fcos-lite0": 1e9, "fcos-lite1": 2e9, "fcos-lite2": 3e9}.get(name, 0) * images


@pytest.mark.parametrize(
    ("name", "images", "free", "settled", "want"),
    [
        ("fcos-lite2", 16, 48, (), ("fcos-lite2", 16)),
        ("fcos-lite2", 16, 47, (), ("fcos-lite2", 8)),
        ("fcos-lite2", 16, 12, (), ("fcos-lite2", 4)),
        ("fcos-lite2", 16, 11, (), ("fcos-lite1", 4)),
        ("fcos-lite2", 4, 7, (), ("fcos-lite0", 4)),
        ("fcos-lite2", 4, 3, (), ("fcos-lite0", 2)),
        ("fcos-lite0", 4, 0, (), ("fcos-lite0", 1)),  # the least there is, and training may still manage
        ("fcos-lite2", 4, 7, {"model"}, ("fcos-lite2", 2)),
        ("fcos-lite2", 8, 9, {"batch"}, ("fcos-lite0", 8)),
        ("fcos-lite2", 8, 7, {"batch"}, ("fcos-lite0", 8)),  # nothing smaller is left
        ("fcos-lite2", 8, 0, {"batch", "model"}, ("fcos-lite2", 8)),
        ("fcos-lite2", 0, 0, {"batch", "model"}, ("fcos-lite2", 0)),  # train.batch=auto looks by itself
        ("fcos-r101", 4, 0, {"model"}, ("fcos-r101", 4)),
    ],
)
def test_the_plan_fits_into_memory(name, images, free, settled, want):
    model, batch = in_memory(
        Choice("model", name, "r"), Choice("batch", str(images), "r"), gigabytes, free * 10**9, settled
    )
    assert (model.value, int(batch.value)) == want
    assert (model.reason == "r") == (model.value == name)
    assert (batch.reason == "r") == (int(batch.value) == images)


def test_a_batch_that_cannot_be_split_is_no_way_out():
    """train.accumulate=8: images of a step in eights."""

    def eights(name, images):
        return gigabytes(name, images) if images % 8 == 0 else float("inf")

    choices = Choice("model", "fcos-lite2", ""), Choice("batch", "8", "")
    model, batch = in_memory(*choices, eights, int(17e9), ())
    assert (model.value, batch.value) == ("fcos-lite1", "8")
    assert model.reason == "fcos-lite2 with 8 images would take 24.0 GB, and 17.0 are free"
    assert in_memory(choices[0], Choice("batch", "4", ""), eights, 0, ()) == (choices[0], Choice("batch", "4", ""))


def test_the_plan_says_what_memory_it_would_have_taken():
    choices = Choice("model", "fcos-lite2", ""), Choice("batch", "4", "")
    model, batch = in_memory(*choices, gigabytes, int(5.5e9), ())
    assert model == Choice("model", "fcos-lite0", "fcos-lite2 with 4 images would take 12.0 GB, and 5.5 are free")
    assert batch is choices[1]


def test_the_model_goes_with_the_machine_and_the_time():
    assert model_for(Time(15), CELLS, cuda=False).value == "fcos-lite0"  # before it is known what there is time for
    assert model_for(Time(15, 600, 12), CELLS, cuda=False).value == "fcos-lite1"
    assert model_for(Time(15, 590, 12), CELLS, cuda=False).value == "fcos-lite0"
    assert model_for(Time(15, 2000, 3.9), CELLS, cuda=False).value == "fcos-lite0"  # many images
    small = replace(CELLS, small=0.04)  # 12.8 px at 320
    assert model_for(Time(3, 120, 12), small, cuda=False).value == "fcos-lite1"
    assert model_for(Time(3, 119, 12), small, cuda=False).value == "fcos-lite0"
    assert model_for(Time(3, 120, 12), CELLS, cuda=False).value == "fcos-lite0"
    assert model_for(Time(15, 1990, 12), CELLS, cuda=False, bare=True).value == "fcos-lite0"
    assert model_for(Time(15, 2000, 12), CELLS, cuda=False, bare=True).value == "fcos-lite1"
    assert model_for(Time(3, 120, 12), small, cuda=False, bare=True).value == "fcos-lite0"
    assert model_for(Time(120), CELLS, cuda=False).value == "fcos-lite2"
    assert model_for(Time(15), CELLS, cuda=True).value == "fcos-lite2"


@pytest.mark.parametrize(
    ("decoding", "steps", "epochs", "need", "kept"),
    [
        (0.05, 100, 3, 250, True),
        (0.01, 100, 3, 250, False),
        (0.05, 99, 3, 250, False),
        (0.05, 100, 2.9, 250, False),
        (0.05, 100, 3, 251, False),
    ],
)
def test_what_is_slow_to_decode_and_fits_is_kept_in_memory(decoding, steps, epochs, need, kept):
    made = cache_for(decoding, Pace(1.0, 0.1, 4, 320), Time(3, steps, epochs), need, 1000)
    assert (made is not None) is kept


def test_few_images_are_learned_in_small_batches():
    assert batch_for(CELLS, cuda=False).value == "4"
    assert batch_for(Facts(5000, 1, 1, 1, 1, 1, 1, True, False, 0), cuda=False).value == "8"


@pytest.mark.parametrize(
    ("small", "steps", "epochs", "size"),
    [
        (0.10, 600, 12, "320"),  # a tenth of the boxes is under 32 px: enough
        (0.03, 1000, 20, "512"),  # under 9.6 px; 416 gives 12.5, 512 gives 15.4, and 20 / 2.56 epochs are left
        (0.03, 450, 9, "416"),  # 512 would leave 3.5 epochs
        (0.03, 250, 5, "320"),  # there is no time for more pixels
        (0.10, 75, 1.5, "256"),  # not even for these
        (0.03, 110, 20, "416"),  # few images: 512 would leave 43 steps, and a run needs 40
        (0.03, 100, 20, "320"),  # 416 would leave 59
    ],
)
def test_the_size_follows_the_boxes_and_the_time(small, steps, epochs, size):
    facts = Facts(205, 3000, 3, 416, small, 0.25, 0.5, True, False, 87)
    assert size_for(facts, 320, Time(1, steps, epochs)).value == size
    assert int(size_for(facts, 320, Time(1, steps, epochs), most=416).value) == min(int(size), 416)  # what memory holds


@pytest.mark.parametrize(
    ("small", "large", "side", "tile"),
    [
        (0.0145, 0.03, 960, 320),  # a tenth is under 14 of 960 pixels: at 320 of 320 they have 14
        (0.10, 0.5, 416, 0),  # large enough as they are
        (0.0146, 0.6, 960, 0),  # a tile that holds 95 of 100 objects is as large as the image
        (0.0146, 0.2, 960, 384),  # larger tiles than the small ones want, for the others
        (0.02, 0.04, 400, 0),  # the images have no more pixels than 512 px show
    ],
)
def test_tiles_are_for_small_objects_of_large_images(small, large, side, tile):
    facts = Facts(60, 2000, 10, side, small, small + 0.01, large, True, True, 20)
    assert tile_for(facts, 320) == tile


def test_flips_follow_the_images():
    assert flips_for(CELLS).value == "left-right, up-down"
    assert flips_for(Facts(1, 1, 1, 1, 1, 1, 1, True, False, 0)).value == "left-right"
    assert flips_for(Facts(1, 1, 1, 1, 1, 1, 1, False, True, 0)).value == "none"


@pytest.mark.parametrize(("known", "classes", "rate"), [(3, 3, "0.0001"), (2, 4, "0.0001"), (1, 3, None), (0, 0, None)])
def test_known_classes_are_learned_gently(known, classes, rate):
    choice = rate_for(1e-3, known, classes)
    assert (choice.value if choice else None) == rate


def test_few_steps_from_a_fitted_layer_are_brisk():
    """Twice the usual rate up to 600 steps, where nothing is known; what is known is still learned gently."""
    assert rate_for(1e-3, 0, 3, 600).value == "0.002"
    assert rate_for(1e-3, 0, 3, 601) is None
    assert rate_for(1e-3, 1, 3, 100) is None
    assert rate_for(1e-3, 2, 3, 100).value == "0.0001"


def test_a_plan_fills_the_time():
    plan = make_plan(CELLS, Pace(0.5, 0.05, 4, 320), 600, CHOSEN, {})
    assert isinstance(plan, Plan)
    steps = plan.settings["train.iterations"]
    assert 0.9 * 600 < steps * 0.5 + plan.tail + 4 * 87 * 0.05 <= 600
    assert plan.settings["data.vertical_flip"] == 0.5
    assert plan.settings["data.train_sizes"] == [288, 320, 352]
    assert {c.name for c in plan.choices} >= {"model", "size", "batch", "flips", "steps", "judged"}


def test_what_the_user_settled_is_not_planned():
    given = {"train.warmup": 3, "data.vertical_flip": 0}
    plan = make_plan(CELLS, Pace(0.5, 0.05, 4, 320), 600, CHOSEN, given)
    assert not set(given) & set(plan.settings)
    assert "flips" not in {c.name for c in plan.choices}


def test_images_that_are_seen_often_are_mixed():
    few, often = (make_plan(CELLS, Pace(step, 0.05, 4, 320), 600, CHOSEN, {}) for step in (0.5, 0.25))
    assert few.settings["data.crop"] == 0
    assert "data.mosaic" not in few.settings
    epochs = often.settings["train.iterations"] / 52  # of 205 images by 4, the last batch filled up
    assert epochs > 40
    assert often.settings["data.crop"] == 0.3
    assert often.settings["data.mosaic"] == 0.5
    assert often.settings["data.plain_epochs"] == round(epochs / 10)
    in_tiles = make_plan(CELLS, Pace(0.25, 0.05, 4, 320), 600, {**CHOSEN, "tile": Choice("tile", "192", "")}, {})
    assert in_tiles.settings["data.crop"] == 0.3
    assert "data.mosaic" not in in_tiles.settings
    without = make_plan(CELLS, Pace(0.25, 0.05, 4, 320), 600, CHOSEN, {"data.mosaic": 0})
    told = [{c.name for c in plan.choices} & {"mosaic", "crop"} for plan in (few, often, in_tiles, without)]
    assert told == [set(), {"mosaic"}, {"crop"}, {"crop"}]
    assert "data.plain_epochs" not in without.settings
    assert mixing_for(26, True)[0]["data.plain_epochs"] == 4  # at least


@pytest.mark.parametrize("every", [1, 2, 5])
def test_evaluations_that_the_user_asks_for_are_in_the_time(every):
    pace = Pace(0.5, 0.05, 4, 320)
    plan = make_plan(CELLS, pace, 600, CHOSEN, {"train.eval_every": every})
    steps = plan.settings["train.iterations"]
    looks = steps * 4 / 205 / every
    assert 0.95 * 600 < steps * 0.5 + plan.tail + looks * 87 * 0.05 <= 600
    assert "train.eval_every" not in plan.settings
    assert [c.value for c in plan.choices if c.name == "judged"] == [f"{-(-looks // 1):.0f} times"]


@pytest.mark.parametrize("seconds", range(440, 1300, 20))
def test_a_run_is_judged_as_often_as_its_plan_says(seconds):
    """Counted over its steps: at the end, and after epochs whose number `train.eval_every` divides; an epoch of 205
    images by 4 has 52 steps."""
    plan = make_plan(CELLS, Pace(0.5, 0.05, 4, 320), seconds, CHOSEN, {})
    steps, every = plan.settings["train.iterations"], plan.settings["train.eval_every"]
    looks = sum(done == steps or (every > 0 and done % (52 * every) == 0) for done in range(1, steps + 1))
    told = "once, at the end" if looks == 1 else f"{looks} times"
    assert [c.value for c in plan.choices if c.name == "judged"] == [told]
    assert looks <= 5


def test_the_end_has_time_for_many_images_to_judge_by():
    """3,000 images of 60 detections took 25 s of one core after the last step, beside the 0.05 s of each detecting."""
    few, many = (ending(replace(CELLS, judged=n), Pace(0.5, 0.05, 4, 320)) for n in (0, 3000))
    assert many - few >= 3000 * 0.05 + 24


def test_without_images_to_judge_by_nothing_is_judged():
    plan = make_plan(replace(CELLS, judged=0), Pace(0.5, 0.05, 4, 320), 600, CHOSEN, {})
    assert [c.value for c in plan.choices if c.name == "judged"] == ["never"]


def test_too_little_time_says_what_it_takes():
    short = make_plan(CELLS, Pace(1.0, 0.05, 4, 320), 20, CHOSEN, {})
    assert isinstance(short, TooShort)
    assert "1.00 s a step" in short.reason
    plan = make_plan(CELLS, Pace(1.0, 0.05, 4, 320), 20 + short.missing, CHOSEN, {})
    assert isinstance(plan, Plan)


def test_the_command_of_a_plan_says_the_same(tmp_path):
    settings = {"train.iterations": 812, "data.train_sizes": [288, 320, 352], "data.flip": 0.5, "train.val_loss": False}
    words = shlex.split(command(["my data", "--model", "fcos-lite0"], settings))
    things, changes = sort_words(words[5:], None)
    assert words[:5] == ["fcos", "train", "my data", "--model", "fcos-lite0"]
    assert not things
    nested = {"train": {"iterations": 812, "val_loss": False}, "data": {"train_sizes": [288, 320, 352], "flip": 0.5}}
    assert resolve("fcos-lite0", changes) == resolve("fcos-lite0", [nested])
