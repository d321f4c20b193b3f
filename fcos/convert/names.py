"""Class names of COCO, as the published checkpoints order them."""

from __future__ import annotations

from ..errors import ModelError
from ..types import Classes

# ids 1..90; a dash is an id that COCO does not use
_TEXT = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop
sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack,
umbrella, -, -, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball
glove, skateboard, surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana,
apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -,
dining table, -, -, toilet, -, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster,
sink, refrigerator, -, book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""
_COCO = tuple(name.strip() for name in _TEXT.replace("\n", " ").split(","))
BACKGROUND = "__background__"

COCO_80 = Classes(
    tuple(name for name in _COCO if name != "-"), tuple(i + 1 for i, name in enumerate(_COCO) if name != "-")
)
# torchvision: one output for every id of COCO, used or not, and for the background, which it never learns
COCO_91 = Classes((BACKGROUND, *("N/A" if name == "-" else name for name in _COCO)), tuple(range(91)))


def class_names(count: int, family: str, names: tuple[str, ...] = ()) -> Classes:
    """Names and ids for `count` outputs: `names` where given, COCO's where the number fits, else numbered.

    torchvision's output 0 is the background: names may leave it out.
    """
    if names:
        if family == "torchvision" and len(names) == count - 1:
            return Classes((BACKGROUND, *names))
        if len(names) != count:
            raise ModelError(f"{len(names)} class names for {count} outputs; give one name a line, in order")
        return Classes(names)
    if count == 80:
        return COCO_80
    if count == 91:
        return COCO_91
    first = (BACKGROUND,) if family == "torchvision" else ()
    return Classes(first + tuple(f"class{i}" for i in range(len(first), count)))
