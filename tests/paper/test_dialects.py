"""Every row of ../shared/design/dialects.md, written out again for each implementation, without this package's maths.

Targets on random boxes of an 800 x 1066 image, losses and detections from random outputs. `RULES` below is
that table; the loops under it are slow and plain on purpose.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matching import assert_same_detections

from fcos.assign import assign, assign_batch
from fcos.config import ModelConfig
from fcos.decode import decode
from fcos.losses import Assignment, fcos_loss
from fcos.network.model import Head
from fcos.points import make_points
from fcos.presets import preset, with_dialect
from fcos.types import Predictions, Target

STRIDES = (8, 16, 32, 64, 128)
RANGES = ((0, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))
ORIGINAL = {
    "offset": 0.5, "ends": "inclusive", "radius": 1.5, "plus": 1, "area": "min", "reg": "relu", "norm": True,
    "box": "giou", "iou_plus": 1, "weight": "ctr", "div": "sum", "n": "pos",
    "filter": ("cls", 0.05), "rank": "score", "report": "sqrt", "clip": "before", "edge": 1, "nms": 0.6, "nms_plus": 1,
}  # fmt: skip
ADELAIDET = {**ORIGINAL, "plus": 0, "clip": "after", "edge": 0, "nms_plus": 0}
DETECTRON2 = {
    **ADELAIDET, "ends": "strict", "area": "1e8", "iou_plus": 0, "weight": "none", "div": "n", "n": "moving",
    "filter": ("score", 0.2),
}  # fmt: skip
MMDET = {**ADELAIDET, "iou_plus": 0, "rank": "cls", "report": "product", "clip": "before", "solid": True}
FIRST = {"radius": 0, "reg": "exp", "norm": False, "box": "iou"}
RULES = {
    "original": ORIGINAL,
    "original-2019": {**ORIGINAL, **FIRST},
    "adelaidet": ADELAIDET,
    "adelaidet-iou": {**ADELAIDET, "weight": "none", "div": "n", "quality": "iou"},
    "detectron2": DETECTRON2,
    "mmdet": MMDET,
    "mmdet-2019": {**MMDET, **FIRST, "nms": 0.5},
    "torchvision": {**DETECTRON2, "offset": 0.0, "grid": True, "n": "pos", "clip": "before"},
}
# settings that other configurations of the same code bases have
OTHERS = {
    "original-whole": ("original", {"radius": 0}, ["assign.center_radius=0"]),
    "original-iou-loss": ("original", {"box": "iou"}, ["loss.box=iou"]),
    "original-2019-center": ("original-2019", {"radius": 1.5}, ["assign.center_radius=1.5"]),
    "original-2019-norm": (  # NORM_REG_TARGETS
        "original-2019",
        {"norm": True, "reg": "relu"},
        ["model.normalize=true", "model.regression=relu"],
    ),
    "adelaidet-whole": ("adelaidet", {"radius": 0}, ["assign.center_radius=0"]),
    "adelaidet-linear": ("adelaidet", {"box": "linear"}, ["loss.box=linear_iou"]),
    "adelaidet-iou-whole": ("adelaidet-iou", {"radius": 0}, ["assign.center_radius=0"]),
    # THRESH_WITH_CTR: cls * ctr > 0.05, which is sqrt(cls * ctr) > sqrt(0.05)
    "adelaidet-thresh-with-ctr": (
        "adelaidet",
        {"filter": ("score", 0.05**0.5)},
        ["decode.threshold_on=score", f"decode.threshold={0.05**0.5}"],
    ),
    "detectron2-whole": ("detectron2", {"radius": 0}, ["assign.center_radius=0"]),
    "mmdet-2019-center": ("mmdet-2019", {"radius": 1.5}, ["assign.center_radius=1.5"]),
    "mmdet-whole": ("mmdet", {"radius": 0}, ["assign.center_radius=0"]),
}  # fmt: skip
CASES = sorted({**RULES, **OTHERS})
ASSIGNING = [name for name in CASES if not name.endswith(("-linear", "-ctr", "-norm", "-iou-loss", "-iou"))]


def case(name):
    """(the table's rules, this package's config) of a dialect or of another configuration."""
    dialect, changes, settings = OTHERS.get(name, (name, {}, []))
    return {**RULES[dialect], **changes}, with_dialect(preset("fcos-r50"), dialect).override(*settings)


def grid(rules, height, width):
    """[(x, y, stride, lower, upper)] float32 of every location of a padded image, level by level, row by row."""
    rows = []
    for stride, (lower, upper) in zip(STRIDES, RANGES, strict=True):
        high, wide = math.ceil(height / stride), math.ceil(width / stride)
        step_y, step_x = (height // high, width // wide) if rules.get("grid") else (stride, stride)
        for j in range(high):
            for i in range(wide):
                rows.append(((i + rules["offset"]) * step_x, (j + rules["offset"]) * step_y, stride, lower, upper))
    return np.array(rows, np.float32)


def targets(rules, locations, boxes):
    """Index of the box that each location learns, -1 for none."""
    x, y, stride, lower, upper = (column[:, None] for column in locations.T)
    x1, y1, x2, y2 = (side[None] for side in boxes.T)
    sides = np.stack((x - x1, y - y1, x2 - x, y2 - y), axis=2)
    reach = sides.max(axis=2)
    if rules["ends"] == "inclusive":
        fits = (reach >= np.where(lower == 0, -1, lower)) & (reach <= upper)
    else:
        fits = (reach > lower) & ((reach < upper) | (upper == 1e8))
    fits &= sides.min(axis=2) > 0
    radius = np.float32(rules["radius"]) * stride
    if rules["radius"] and rules["ends"] == "inclusive":  # the region around the centre, cut to the box
        cx, cy = (x1 + x2) / np.float32(2), (y1 + y2) / np.float32(2)
        left, right = np.maximum(cx - radius, x1), np.minimum(cx + radius, x2)
        top, bottom = np.maximum(cy - radius, y1), np.minimum(cy + radius, y2)
        fits &= np.stack((x - left, y - top, right - x, bottom - y), axis=2).min(axis=2) > 0
    elif rules["radius"]:
        away = np.maximum(np.abs(x - (x1 + x2) / np.float32(2)), np.abs(y - (y1 + y2) / np.float32(2)))
        fits &= away < radius
    area = (boxes[:, 2] - boxes[:, 0] + np.float32(rules["plus"])) * (
        boxes[:, 3] - boxes[:, 1] + np.float32(rules["plus"])
    )
    if rules["area"] == "1e8":
        index = np.where(fits, np.float32(1e8) - area[None], np.float32(0)).argmax(axis=1)
    else:
        index = np.where(fits, area[None], np.float32(1e8)).argmin(axis=1)
    return np.where(fits.any(axis=1), index, -1)


def scene(seed, height, width, count):
    """Boxes of all sizes, some on whole and on multiples of 8 pixels, some twice, one a hair larger than another."""
    draw = np.random.default_rng(seed)
    side = np.exp(draw.uniform(np.log(4), np.log(min(height, width)), (count, 2)))
    corner = draw.uniform(0, 1, (count, 2)) * (np.array([width, height]) - side).clip(1)
    boxes = np.concatenate((corner, np.minimum(corner + side, [width, height])), axis=1).astype(np.float32)
    boxes[::4] = boxes[::4].round()
    boxes[1::4] = (boxes[1::4] / 8).round() * 8
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    return np.concatenate((boxes[:3], boxes[:2] + np.float32([0, 0, 0.02, 0.01]), boxes))


@pytest.mark.parametrize("name", ASSIGNING)
def test_targets_at_800_by_1066(name):
    rules, config = case(name)
    height, width = 800, 1088  # 1066 columns, padded to a multiple of 32
    locations = grid(rules, height, width)
    points = make_points((height, width), config.model, config.assign)
    assert np.array_equal(points.xy.numpy(), locations[:, :2])
    for seed in range(2):
        boxes = scene(seed, 800, 1066, 40)
        expected = targets(rules, locations, boxes)
        given = torch.from_numpy(boxes)
        assert np.array_equal(assign(points, given, config.assign).numpy(), expected)
        target = Target(given, torch.zeros(len(boxes), dtype=torch.int64), torch.zeros(len(boxes), dtype=torch.bool))
        assert np.array_equal(assign_batch(points, [target], config.assign)[0].numpy(), expected)
        assert (expected >= 0).sum() > 100


@pytest.mark.parametrize("name", ASSIGNING)
def test_a_distance_of_exactly_64(name):
    rules, config = case(name)
    points = make_points((256, 256), config.model, config.assign)
    spot = float(points.xy[(points.level == 1).nonzero()[0, 0] + 4 * 16 + 4, 0])  # a P4 location; near it, none of P3
    learnt = set()
    for level in (0, 1):
        near = (points.xy - spot).abs().amax(dim=1) + 1e3 * (points.level != level)
        x, y = points.xy[near.argmin()].tolist()
        box = torch.tensor([[x - 64, y - 62, x + 62, y + 62]])  # the centre is near, the farthest side 64 away
        if assign(points, box, config.assign)[near.argmin()] == 0:
            learnt.add(level)
    assert learnt == ({0, 1} if rules["ends"] == "inclusive" else set())


def scene_of_losses(rules, config, seed=0):
    points = make_points((160, 224), config.model, config.assign)
    draw = torch.Generator().manual_seed(seed)
    count = len(points.xy)
    pred = Predictions(
        torch.randn(2, count, 3, generator=draw),
        torch.rand(2, count, 4, generator=draw) * 60,
        torch.randn(2, count, generator=draw),
    )
    boxes = [scene(s, 160, 224, n) for s, n in ((seed, 5), (seed + 1, 2))]
    labels = [torch.randint(0, 3, (len(b),), generator=draw) for b in boxes]
    index = [targets(rules, grid(rules, 160, 224), b) for b in boxes]
    return SimpleNamespace(points=points, pred=pred, boxes=boxes, labels=labels, index=index)


def written_out(rules, s):
    """(class, box, centre-ness loss) as the table has them, location by location, in float64."""
    xy, stride = s.points.xy.double(), s.points.stride.double()
    classes = box = branch = weight_sum = positives = 0.0
    for image in range(2):
        logits, distances, centerness = (v[image].double() for v in s.pred)
        wanted = torch.zeros_like(logits)
        for p in range(len(xy)):
            i = int(s.index[image][p])
            if i < 0:
                continue
            positives += 1
            wanted[p, s.labels[image][i]] = 1
            x1, y1, x2, y2 = s.boxes[image][i].astype(float)
            truth = torch.stack((xy[p, 0] - x1, xy[p, 1] - y1, x2 - xy[p, 0], y2 - xy[p, 1]))
            unit = stride[p] if rules["norm"] else 1.0
            l, t, r, b = (truth / unit).tolist()
            pl, pt, pr, pb = (distances[p] / unit).tolist()
            inter = (min(l, pl) + min(r, pr)) * (min(t, pt) + min(b, pb))
            hull = (max(l, pl) + max(r, pr)) * (max(t, pt) + max(b, pb))
            union = (l + r) * (t + b) + (pl + pr) * (pt + pb) - inter
            iou = (inter + rules["iou_plus"]) / (union + rules["iou_plus"])
            one = {"giou": 1 - (iou - (hull - union) / hull), "iou": -math.log(max(iou, 1e-6)), "linear": 1 - iou}
            ctr = math.sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))
            weight = ctr if rules["weight"] == "ctr" else 1.0
            box += weight * one[rules["box"]]
            weight_sum += weight
            learns = torch.tensor(iou if rules.get("quality") == "iou" else ctr, dtype=torch.float64)
            branch += float(F.binary_cross_entropy_with_logits(centerness[p], learns))
        chance = torch.sigmoid(logits)
        right = torch.where(wanted == 1, chance, 1 - chance)
        alpha = torch.where(wanted == 1, 0.25, 0.75)
        classes += float((-alpha * (1 - right) ** 2 * right.log()).sum())
    number = 0.9 * 300 + 0.1 * max(positives, 1) if rules["n"] == "moving" else max(positives, 1)
    return classes / number, box / (weight_sum if rules["div"] == "sum" else number), branch / number


@pytest.mark.parametrize("name", CASES)
def test_losses_of_the_first_step(name):
    rules, config = case(name)
    s = scene_of_losses(rules, config)
    truth = [
        Target(torch.from_numpy(b), labels, torch.zeros(len(b), dtype=torch.bool))
        for b, labels in zip(s.boxes, s.labels, strict=True)
    ]
    index = torch.from_numpy(np.stack(s.index))
    found = fcos_loss(s.pred, Assignment.of(s.points, truth, index), config.loss, config.model)
    assert [float(v) for v in found] == pytest.approx(written_out(rules, s), rel=2e-5)


def survivors(rules, pred, points, size):
    """[(score, class, box)] best first, as the table decodes one image."""
    kept = []
    for level in range(5):
        rows = []
        for p in (points.level == level).nonzero()[:, 0].tolist():
            for c in range(pred.logits.shape[1]):
                cls, ctr = torch.sigmoid(pred.logits[p, c]).item(), torch.sigmoid(pred.centerness[p]).item()
                root = math.sqrt(cls * ctr)
                of, limit = rules["filter"]
                if (cls if of == "cls" else root) > limit:
                    (x, y), (l, t, r, b) = points.xy[p].tolist(), pred.distances[p].tolist()
                    rank = cls if rules["rank"] == "cls" else root
                    score = cls * ctr if rules["report"] == "product" else root
                    rows.append((rank, score, c, [x - l, y - t, x + r, y + b]))
        kept += sorted(rows, reverse=True, key=lambda row: row[0])[:TOPK]
    height, width = size

    def cut(box):
        high, wide = height - rules["edge"], width - rules["edge"]
        return [min(max(v, 0.0), float(m)) for v, m in zip(box, (wide, high, wide, high), strict=True)]

    rows = [(score, c, cut(box) if rules["clip"] == "before" else box) for _, score, c, box in kept]
    if rules.get("solid"):  # mmdetection's min_bbox_size of 0: wider and higher than that
        rows = [row for row in rows if row[2][2] - row[2][0] > 0 and row[2][3] - row[2][1] > 0]
    rows.sort(key=lambda row: -row[0])
    one, found = rules["nms_plus"], []
    for score, c, (x1, y1, x2, y2) in rows:
        for _, other, (u1, v1, u2, v2) in found:
            inter = max(min(x2, u2) - max(x1, u1) + one, 0) * max(min(y2, v2) - max(y1, v1) + one, 0)
            union = (x2 - x1 + one) * (y2 - y1 + one) + (u2 - u1 + one) * (v2 - v1 + one) - inter
            if other == c and inter / union > rules["nms"]:
                break
        else:
            found.append((score, c, (x1, y1, x2, y2)))
    found = found[:100]
    if rules["clip"] == "after":
        found = [(s, c, cut(b)) for s, c, b in found]
        found = [(s, c, b) for s, c, b in found if b[2] > b[0] and b[3] > b[1]]
    return found


TOPK = 12  # instead of 1000, so that a small image reaches it


@pytest.mark.parametrize("name", CASES)
def test_detections(name):
    rules, config = case(name)
    assert config.decode.topk == 1000
    assert config.decode.max_detections == 100
    points = make_points((64, 96), config.model, config.assign)
    draw = torch.Generator().manual_seed(3)
    count = len(points.xy)
    pred = Predictions(
        torch.randn(1, count, 2, generator=draw) * 2 - 1,
        torch.rand(1, count, 4, generator=draw) * 40,
        torch.randn(1, count, generator=draw),
    )
    size = (55, 90)
    (found,) = decode(pred, points, [size], config.override({"decode": {"topk": TOPK}}).decode)
    expected = survivors(rules, Predictions(*(v[0] for v in pred)), points, size)
    assert len(expected) > 15
    scores, labels, boxes = zip(*expected, strict=True)
    theirs = {"boxes": torch.tensor([list(b) for b in boxes]), "scores": scores, "labels": labels}
    assert_same_detections(found, theirs, box=1e-4, score=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_regression_to_pixels_and_the_tower_of_centerness(name):
    rules, config = case(name)
    first = name.startswith(("original-2019", "mmdet-2019"))
    small = {"head_channels": 8, "fpn_channels": 8, "head_convs": 1}
    model = ModelConfig(**{**config.model.model_dump(), **small})
    torch.manual_seed(0)
    head = Head(model, 2)
    scaled = not name.startswith(("detectron2", "torchvision"))
    assert (head.scales is not None) == scaled
    if head.scales is not None:
        head.scales.data = torch.tensor([0.5, 0.7, 1.0, 1.2, 2.0])
    maps = [torch.randn(1, 8, 4, 4) for _ in STRIDES]
    with torch.no_grad():
        pred = head(maps)
        for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
            here = slice(16 * level, 16 * level + 16)
            raw = head.box_distances(head.regression(x, level)) * (head.scales[level] if scaled else 1)
            pixels = raw.exp() if rules["reg"] == "exp" else raw.clamp(min=0)
            pixels = pixels * stride if rules["norm"] else pixels
            torch.testing.assert_close(pred.distances[0, here], pixels[0].flatten(1).T)
            tower = head.classification if first else head.regression
            torch.testing.assert_close(pred.centerness[0, here], head.centerness(tower(x, level)).flatten())


BGR_2019, BGR = [102.9801, 115.9465, 122.7717], [103.53, 116.28, 123.675]


@pytest.mark.parametrize(
    ("name", "mean", "std", "bgr", "in_1x1", "eps", "inclusive", "bias_lr", "bias_decay", "warmup"),
    [
        ("original", BGR_2019, [1, 1, 1], True, True, 0.0, True, 2, False, ("constant", 500, 1 / 3)),
        ("original-2019", BGR_2019, [1, 1, 1], True, True, 0.0, True, 2, False, ("constant", 500, 1 / 3)),
        ("adelaidet", BGR, [1, 1, 1], True, True, None, False, 1, True, ("linear", 1000, 0.001)),
        ("detectron2", BGR, [1, 1, 1], True, True, None, False, 1, True, ("linear", 1000, 0.001)),
        ("mmdet-2019", BGR_2019, [1, 1, 1], True, True, None, False, 2, False, ("constant", 500, 1 / 3)),
        ("mmdet", BGR, [1, 1, 1], True, True, None, False, 2, False, ("linear", 500, 1 / 3)),
        ("torchvision", BGR, [57.375, 57.12, 58.395], False, False, None, False, 1, True, ("linear", 1000, 0.001)),
    ],
)
def test_pixels_body_and_schedule(name, mean, std, bgr, in_1x1, eps, inclusive, bias_lr, bias_decay, warmup):
    config = with_dialect(preset("fcos-r50"), name)
    model, data, train = config.model, config.data, config.train
    assert list(model.mean[::-1]) == mean
    assert list(model.std[::-1]) == std
    assert (model.bgr, model.stride_in_1x1, model.extra_from) == (bgr, in_1x1, "fpn")
    assert model.backbone_norm_eps == eps  # None: timm's own, which is 1e-5 for ResNets
    assert model.head_bias == (name != "mmdet-2019")
    assert data.inclusive_boxes == inclusive
    assert (train.bias_lr, train.bias_decay) == (bias_lr, bias_decay)
    assert train.bias_of_norms == name.startswith("original")
    assert (train.warmup_rule, train.warmup) == warmup[:2]
    assert train.warmup_start == pytest.approx(warmup[2])
