"""How to spend the minutes: a few rules from facts of the data and a measured pace to settings. Each rule says what it
rests on; "bccd" and "weights" are docs/measurements, "judgement" is no measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

from ...system.terminal import plural
from .facts import Facts

Settings = dict[str, object]

LEAST = 40  # steps below which a run is not worth its name: a new class layer has barely left its start
FEW = 100  # steps below which the plan says that more minutes would pay, where classes are new (judgement)
SIZES = (256, 320, 416, 512)
_PIXELS = 14.0  # of the shorter side of a box at the network's input, which nine boxes of ten should have
_ROOM = 2.0  # sides of a tile by the longer side of what it should hold
MODELS = ("fcos-lite0", "fcos-lite1", "fcos-lite2")  # by the memory of a step and by its time
SMALLEST, _SMALLEST_AT = MODELS[0], 320  # and pixels of its input's shorter side
_STEPS, _AT_LEAST = 300, 2.0  # steps and epochs that fcos-lite1 should have, small objects apart
_BARE_STEPS = 1000  # and from ImageNet weights alone
_FIT = 2.0  # seconds of one core in which a layer of a few classes is fitted to its rows; twice that for 20
OFTEN = 25  # epochs from which on images would be learned by heart
MORE_READ = 1.5  # images more that are read for each, where half of them are mosaics of four
_BRISK = 600  # steps up to which twice the usual learning rate was tried and not worse
_EPOCHS, _LARGER = 4.0, 1.5 * LEAST  # epochs and steps to be left where pixels are spent on more than the preset's size


class Pace(NamedTuple):
    """Measured seconds: of a training step (of `batch` images at `size`, a lower quartile), and of judging an image."""

    step: float
    image: float
    batch: int
    size: int

    def at(self, size: int) -> Pace:
        """The same at another size, by the number of pixels."""
        return Pace(self.step * (size / self.size) ** 2, self.image * (size / self.size) ** 2, self.batch, size)


class Choice(NamedTuple):
    """One row of the plan: what was chosen, and why."""

    name: str
    value: str
    reason: str


class Time(NamedTuple):
    """What there is time for: minutes to spend, and steps and epochs of the smallest detector, or of another one."""

    minutes: float
    steps: float = 0.0
    epochs: float = 0.0


def model_for(time: Time, facts: Facts, cuda: bool, bare: bool = False) -> Choice:
    """The preset. A GPU takes the largest detector in the package. A CPU takes the smallest where time is short, else
    fcos-lite1, whose steps take twice as long; fcos-lite2 where there is an hour, and 20 seconds an image (judgement).
    Where a tenth of the boxes is under 14 pixels for the smallest, fcos-lite1 needs little time: its detector has
    learned at 416 px. `bare`: learning begins from the ImageNet weights of the backbone alone.

    In equal time of one core fcos-lite1 was better on bccd whether it was short or long: AP 0.616 after 312 steps,
    0.620 after 624, 0.624 after 1,248; fcos-lite0 0.602 after 624, 0.608 after 1,248, 0.612 after 2,600 (bccd).
    In 150 s of one core: small digits 0.32 after 58 steps and 0.21 to 0.27 after 70 to 48; tiny ones, in tiles, 0.213
    after 83 and 0.194 after 158; COCO's 60 no difference to be seen; large digits and bccd none either, at 320 px
    (training). From ImageNet weights alone, in 600 s of one core, VOC of three classes: 0.22, 0.18 and 0.15 after 398,
    400 and 353 steps, and 0.26 and 0.25 of fcos-lite0 after 723 and 871; digits in 300 s 0.832 after 388 and 0.860
    after 684 (training).
    """
    if cuda:
        return Choice("model", "fcos-lite2", "the most accurate in the package, on a GPU")
    if time.minutes * 60 / max(facts.images, 1) >= 20 and time.minutes >= 60:
        return Choice("model", "fcos-lite2", "there is time for the largest: 20 seconds an image and more")
    if time.steps >= 2 * (_BARE_STEPS if bare else _STEPS) and time.epochs >= 2 * _AT_LEAST:
        return Choice("model", "fcos-lite1", "there is time for the larger one, which learns more from a step")
    if not bare and facts.small * _SMALLEST_AT < _PIXELS and time.steps >= 2 * _LARGER:
        return Choice("model", "fcos-lite1", f"a tenth of the boxes is under {_PIXELS:.0f} px at {_SMALLEST_AT}")
    return Choice("model", SMALLEST, "the fastest in the package")


def batch_for(facts: Facts, cuda: bool) -> Choice:
    """On few images small batches learn more: 840 steps of 4 gave AP 0.604 where 420 of 8 gave 0.592 (bccd)."""
    if cuda:
        return Choice("batch", "16", "a GPU is idle with fewer (judgement)")
    if facts.images <= 1500:
        return Choice("batch", "4", f"{plural(facts.images, 'image')}: the number of steps counts more")
    return Choice("batch", "8", f"{plural(facts.images, 'image')}: there are steps enough")


def in_memory(
    model: Choice, batch: Choice, need: Callable[[str, int], float], free: int, settled: Collection[str]
) -> tuple[Choice, Choice]:
    """Both as they are where training with them needs at most the `free` bytes. Else fewer images a step, down to 4; a
    smaller model; 2 images or 1 (judgement). need: bytes, of a model's name and a number of images; infinite where it
    cannot be. settled: "model" or "batch" where the user chose it, which stays."""
    most = int(batch.value)
    wanted = need(model.value, most)
    if wanted <= free or wanted == math.inf:
        return model, batch
    names = [model.value] if "model" in settled else list(MODELS[MODELS.index(model.value) :: -1])
    counts = [most] if "batch" in settled else [most >> times for times in range(most.bit_length())]
    tried = [(name, n) for name in names for n in counts if n >= min(4, most)] + [(names[-1], n) for n in counts]
    fits = next((one for one in tried if need(*one) <= free), min(tried, key=lambda one: need(*one)))
    why = f"{model.value} with {plural(most, 'image')} would take {wanted / 1e9:.1f} GB, and {free / 1e9:.1f} are free"
    name, images = fits
    return (
        model if name == model.value else Choice("model", name, why),
        batch if images == most else Choice("batch", str(images), why),
    )


def rate_for(usual: float, known: int, classes: int, steps: float = math.inf) -> Choice | None:
    """A tenth of the usual learning rate where the detector that it starts from knows half of the classes or more, by
    their names or by sight; twice the usual where it knows none, for few `steps` (infinite: no such detector, or not
    known); else None.

    At the usual rate much of what it knows is lost. On 100 images of VOC's cars, cats and chairs the package's detector
    had AP 0.495 untaught, 0.461 after 150 s of one core at a tenth, 0.434 at three tenths, and 0.372 after 300 s at the
    usual rate. On 40 images of COCO, three of whose four classes it knows, 150 s gave 0.222 at a tenth, 0.200 at three
    tenths and 0.159 at the usual one. With the layer of classes fitted first, twice the usual rate gave 0.013 more on
    digits after 150 steps (three seeds) and on bccd after 200, and the same there after 600
    (docs/measurements/training.md).
    """
    if not known and steps <= _BRISK:
        return Choice("rate", f"{2 * usual:g}", f"twice the usual: {steps:.0f} steps are few")
    if not classes or 2 * known < classes:
        return None
    told = f"a tenth of the usual: it knows {known} of {plural(classes, 'class')}"
    return Choice("rate", f"{usual / 10:g}", told)


BINS: Settings = {"model.regression": "bins", "loss.log_weight": 1.0}


def boxes_for(model: str, bare: bool, given: Collection[str]) -> Choice | None:
    """Distances as bins (`BINS`) where a detector of the package is learned from ImageNet weights alone (`bare`): each
    side is a distribution over distances, whose loss says more in a step. From the package's detectors, which do
    without, they helped cells alone, so there the heads stay as they are. So they do with other levels.

    In equal time of one core, with them and without: bccd 0.546 and 0.526 (300 s), 0.626 and 0.607 (1,440 s); digits
    0.860 and 0.825 (300 s); VOC of three classes 0.190 and 0.191, 0.221 and 0.204 (600 s, two seeds) (training).
    """
    if not bare or model not in MODELS or {*BINS, "model.strides", "assign.ranges"} & set(given):
        return None
    return Choice("boxes", "bins", "distributions of distances learn faster where all but the backbone is fresh")


def probe_for(usual: int, facts: Facts, pace: Pace, seconds: float) -> tuple[Choice, float]:
    """How many images the layer of new classes is fitted to before the first step, and the seconds that this takes: the
    preset's, fewer where it would be more than a tenth of the time.

    On digits 150 steps at 192 px from the package's detector gave AP 0.74 with it and 0.29 without; on bccd 200 gave
    0.493 and 0.483. It took the processor time of 20 to 35 such steps (docs/measurements/training.md).
    """
    each = 0.6 * pace.step / pace.batch  # forward alone, one at a time
    fit = _FIT * (1 + facts.classes / 20)
    images = max(1, min(usual, facts.images, round((seconds / 10 - fit) / each)))
    told = "images that the layer of classes is fitted to before the first step"
    return Choice("probe", str(images), told), each * images + fit


def cache_for(decoding: float, pace: Pace, time: Time, need: int, room: int) -> Choice | None:
    """Decoded images are kept in memory, shrunk to what training asks for, where decoding is a twentieth of a step or
    more. They are all decoded once for it, so only from three epochs and 100 steps on, and in a quarter of the free
    memory (judgement).

    decoding: seconds of the whole machine for an image. need, room: bytes. With photographs of 12 megapixels a step of
    four took 1.53 s of one core without and 1.12 s with it; of mosaics 2.00 s and 1.04 s (training).
    """
    share = decoding * pace.batch / pace.step
    if share < 0.05 or time.epochs < 3 or time.steps < FEW or need > room / 4:
        return None
    return Choice("cache", "ram", f"decoding is {100 * min(share, 1):.0f} % of a step; {need / 1e6:,.0f} MB in memory")


def size_for(facts: Facts, usual: int, time: Time, most: int = SIZES[-1]) -> Choice:
    """The input's shorter side: the preset's, which its detector was trained at.

    More where a tenth of the boxes would be smaller than 14 pixels and there is time for the pixels; less where there
    is not even time for two epochs (both judgement). Larger than needed gave nothing and cost steps: AP 0.588 at
    384 px, 0.604 at 320 (bccd). `time`: what there is at `usual`. most: what there is memory for.
    """
    if time.epochs < 2 and usual > SIZES[0]:
        smaller = max([s for s in SIZES if s < usual], default=usual)
        return Choice("size", str(smaller), f"at {usual} px there is time for {time.epochs:.1f} epochs only")
    wanted = usual
    for size in SIZES:
        left = (usual / size) ** 2  # of the steps
        enough = time.epochs * left >= _EPOCHS and time.steps * left >= _LARGER
        if usual < size <= most and facts.small * wanted < _PIXELS and enough:
            wanted = size
    if wanted > usual:
        return Choice("size", str(wanted), f"a tenth of the boxes is under {facts.small * usual:.0f} px at {usual}")
    return Choice("size", str(usual), f"half of the boxes are {facts.middle * usual:.0f} px and more at that size")


def tile_for(facts: Facts, usual: int) -> int:
    """The side of the tiles to learn from, in pixels of the image; 0 for whole images.

    Tiles where a tenth of the boxes would be smaller than 14 pixels even at the largest size, and none is too large for
    a tile: they show objects as large as the images have them. On 60 images of 1280x960 with 36 digits of 12 to 26
    pixels each, for as many pixels of training, AP was 0.097 from tiles of 320 and 0.024 at 512 px (tiles).
    """
    if facts.small * SIZES[-1] >= _PIXELS:
        return 0
    fine = usual * facts.small * facts.side / _PIXELS  # at which that tenth has its pixels
    whole = _ROOM * facts.large * facts.side  # which holds 95 of 100 boxes
    tile = 32 * math.ceil(max(fine, whole, usual / 2) / 32)
    return tile if tile * SIZES[-1] <= 0.75 * usual * facts.side else 0


def flips_for(facts: Facts) -> Choice:
    """Mirrored images are other images, for nothing, unless objects have a handedness, as letters. Upside down
    only where nothing tells up from down (microscopes, aerial images; bccd's table has it in every good row)."""
    if facts.handed:
        return Choice("flips", "none", "the objects are not their mirror images")
    if facts.upright:
        return Choice("flips", "left-right", "up and down differ")
    return Choice("flips", "left-right, up-down", "up and down look alike")


def mixing_for(epochs: float, mosaics: bool) -> tuple[Settings, Choice | None]:
    """What keeps images that are seen often from being learned by heart: from 25 epochs on half of them are mosaics,
    but for the last tenth of the planned steps, four epochs at least, and three of ten others are cropped. `mosaics`:
    whether there may be some; of tiles they were not tried.

    From ImageNet weights, 30 minutes of one core, with mosaics and without: 100 images of VOC's cars, cats and chairs,
    59 epochs, AP 0.269 and 0.239; bccd, 33 epochs, 0.621 and 0.616; digits, 47 epochs, 0.915 and 0.909;
    one seed, so only their agreeing says something (docs/measurements/studies.md). The crops, and 25, are judgement.
    """
    often = epochs > OFTEN
    settings: Settings = {"data.crop": 0.3 if often else 0.0}
    if not often:
        return settings, None
    told = f"{epochs:.0f} epochs: the same images would be learned by heart"
    if not mosaics:
        return settings, Choice("crop", "3 of 10", told)
    settings |= {"data.mosaic": 0.5, "data.plain_epochs": max(4, round(epochs / 10))}
    return settings, Choice("mosaic", "5 of 10", f"{told}; 3 of 10 others are cropped")
