# %% [markdown]
# # The method in five images
#
# How does FCOS find objects? The method of the paper (arXiv 1904.01355) in five steps, on one image: where the grid
# looks, which location learns which box, what centerness is, what the losses are, and how predictions become
# detections. Each step is an image and the code that draws it, with the package's own functions. All of it is one
# script, docs/notebooks/the_paper.py: run it as a program, or cell by cell in an editor that knows `# %%`.

# %%
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch

import fcos
from fcos.assign import assign_batch
from fcos.boxes import nms
from fcos.decode import finish, select, trim
from fcos.inference.sources import load_source
from fcos.losses import Assignment, centerness_target, fcos_loss
from fcos.show.draw import level_color
from fcos.types import Predictions, Target

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PHOTOS = Path(fcos.__file__).parent / "assets" / "photos"
OUT = Path("the-paper")
OUT.mkdir(exist_ok=True)

detector = fcos.load("fcos-lite0", device="cpu")
data = fcos.open_dataset(PHOTOS)

# three of the package's photographs side by side, in three sizes, so that there are objects for several levels
photo = np.full((400, 640, 3), 235, np.uint8)  # RGB
boxes, labels = [], []
for name, zoom, (left, top) in (
    ("cat", 0.92, (0, 60)),
    ("astronaut", 0.44, (424, 8)),
    ("photographer", 0.3, (440, 244)),
):
    record = next(r for r in data.records if r.path.stem == name)
    small = cv2.resize(load_source(record.path), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    photo[top : top + small.shape[0], left : left + small.shape[1]] = small
    boxes += (record.boxes * zoom + np.array([left, top, left, top])).tolist()
    labels += [detector.classes.names.index(data.classes.names[k]) for k in record.labels]

image, size = detector.prepare(photo)  # resized and padded: what the network sees
scale = size[1] / photo.shape[1]
shown = image.permute(1, 2, 0).numpy()[: size[0], : size[1]]


def draw(name, title, columns=1):
    """A figure with the photo in each of its columns; save it by calling the last value."""
    figure, axes = plt.subplots(1, columns, figsize=(5.6 * columns, 4.1), squeeze=False, layout="constrained")
    for one in axes[0]:
        one.imshow(shown)
        one.set_axis_off()
        one.set_xlim(0, size[1])
        one.set_ylim(size[0], 0)
    figure.suptitle(title, fontsize=11)

    def save():
        figure.savefig(OUT / name, dpi=80)
        plt.close(figure)

    return axes[0], save


def color(level):
    return np.array(level_color(level)) / 255


def frame(axes, box, **style):
    x1, y1, x2, y2 = box
    axes.add_patch(plt.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style))


# %% [markdown]
# ## 1. Locations
#
# There are no anchor boxes. Each of the five levels P3 to P7 is a grid of locations, one for every 8, 16, 32, 64 or
# 128 pixels of the input. Each location may find one object.

# %%
points = detector.points(image.shape[1:])
axes, save = draw("1-locations.jpg", f"{len(points.xy):,} locations on five levels", 3)
for one, level in zip(axes, (0, 2, 3), strict=True):
    here = points.level == level
    one.scatter(*points.xy[here].T, s=2 + 3 * level**2, color=color(level))
    one.set_title(f"P{level + 3}: one in {points.grids[level].stride} pixels, {int(here.sum())} locations", fontsize=9)
save()

# %% [markdown]
# ## 2. Which location learns which box
#
# A location learns a box when it lies in the middle part of the box ("center sampling") and the largest of its four
# distances fits the range of its level: up to 64 pixels on P3, 64 to 128 on P4, and so on. Where boxes overlap, it
# learns the smallest. So the size of an object decides its level, and most ambiguity is gone.

# %%
boxes = torch.tensor(boxes) * scale
target = Target(boxes, torch.tensor(labels), torch.zeros(len(boxes), dtype=torch.bool))
index = assign_batch(points, [target], detector.config.assign)  # [1, P]: number of the box, or -1
assigned = Assignment.of(points, [target], index)
positives = assigned.positives
axes, save = draw(
    "2-assignment.jpg", f"{len(positives.point)} of {len(points.xy):,} locations learn a box; colour: level"
)
for box in boxes.tolist():
    frame(axes[0], box, color="white", linewidth=2)
for level in range(len(points.grids)):
    here = positives.point[points.level[positives.point] == level]
    if len(here):
        axes[0].scatter(*points.xy[here].T, s=14 + 14 * level, color=color(level), label=f"P{level + 3}")
axes[0].legend(loc="lower left", fontsize=8)
save()

# %% [markdown]
# ## 3. Centerness
#
# A location at the edge of its box predicts it badly. Centerness, `sqrt(min(l,r)/max(l,r) * min(t,b)/max(t,b))`, is 1
# in the middle and 0 at the edge. The network learns to predict it, and it lowers the score of bad places.

# %%
largest = int((boxes[:, 2:] - boxes[:, :2]).prod(dim=1).argmax())
x1, y1, x2, y2 = boxes[largest].tolist()
ys, xs = torch.meshgrid(torch.arange(y1 + 0.5, y2), torch.arange(x1 + 0.5, x2), indexing="ij")
sides = torch.stack((xs - x1, ys - y1, x2 - xs, y2 - ys), dim=-1)
with torch.no_grad():
    predictions = detector.network(image[None])
raw = Predictions(*(value[0] for value in predictions))
mine = positives.point[index[0, positives.point] == largest]
level = int(points.level[mine].mode().values) if len(mine) else 2
grid = points.grids[level]
told = raw.centerness[grid.start : grid.start + grid.cells].sigmoid().reshape(grid.height, grid.width)
axes, save = draw("3-centerness.jpg", "Centerness of the largest box", 2)
axes[0].imshow(centerness_target(sides), extent=(x1, x2, y2, y1), cmap="magma", alpha=0.75, vmin=0, vmax=1)
axes[0].set_title("what is to be learned", fontsize=9)
axes[1].imshow(
    told, extent=(0, grid.width * grid.stride, grid.height * grid.stride, 0), cmap="magma", alpha=0.75, vmin=0, vmax=1
)
axes[1].set_title(f"what the network says on P{level + 3}", fontsize=9)
for one in axes:
    frame(one, boxes[largest].tolist(), color="white", linewidth=1)
    one.set_xlim(0, size[1])
    one.set_ylim(size[0], 0)
save()

# %% [markdown]
# ## 4. The loss
#
# Focal loss for the classes of all locations, an IoU loss for the boxes and binary cross-entropy for the centerness of
# those that learn one. Here it is for this one image, with the trained network and with the same predictions spoiled:
# boxes 20 % too large, and no idea of the classes.

# %%
config = detector.config
trained = fcos_loss(predictions, assigned, config.loss, config.model)
larger = fcos_loss(predictions._replace(distances=predictions.distances * 1.2), assigned, config.loss, config.model)
unsure = fcos_loss(predictions._replace(logits=predictions.logits * 0), assigned, config.loss, config.model)
rows = {"as trained": trained, "boxes 20 % larger": larger, "classes unknown": unsure}
figure, one = plt.subplots(figsize=(7, 2.6), layout="constrained")
left = np.zeros(len(rows))
for part in ("classification", "box", "centerness"):
    values = np.array([float(getattr(losses, part)) for losses in rows.values()])
    one.barh(list(rows), np.log1p(values), left=left, label=part)
    left += np.log1p(values)
one.invert_yaxis()
one.set_xlabel("log(1 + loss), added up")
one.legend(fontsize=8)
figure.savefig(OUT / "4-loss.jpg", dpi=80)
plt.close(figure)
for name, losses in rows.items():
    print(f"{name:18}", "  ".join(f"{part} {float(value):8.3f}" for part, value in losses._asdict().items()))

# %% [markdown]
# ## 5. From predictions to detections
#
# Score = class probability x centerness; its square root, which ranks the same, in the journal version and in the
# code of both. Candidates above a threshold, the best of each level, then NMS: of boxes of one class that overlap, the
# best stays. Nothing else is done.

# %%
candidates = trim(select(raw, points, config.decode), size, config.decode)
keep, scores = nms(candidates.boxes, candidates.scores, candidates.labels, config.decode)
detections, _ = finish(candidates, keep, scores, size, config.decode)
axes, save = draw("5-decode.jpg", "Score, then NMS", 2)
strong = candidates.scores > 0.4
for box, spot in zip(candidates.boxes[strong].tolist(), candidates.points[strong].tolist(), strict=True):
    frame(axes[0], box, color=color(int(points.level[spot])), linewidth=0.8)
axes[0].set_title(f"{int(strong.sum())} candidates above 0.4", fontsize=9)
strong = detections.scores > 0.4
for box, score, label in zip(
    *(v[strong].tolist() for v in (detections.boxes, detections.scores, detections.labels)), strict=True
):
    frame(axes[1], box, color="white", linewidth=2)
    text = f"{detector.classes.names[label]} {score:.2f}"
    axes[1].text(
        box[0] + 4, max(box[1], 0) + 14, text, color="black", fontsize=8, bbox={"facecolor": "white", "pad": 1}
    )
axes[1].set_title(f"{int(strong.sum())} after NMS", fontsize=9)
save()
print(f"{int(strong.sum())} detections; images are in {OUT}/")
