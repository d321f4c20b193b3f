"""Two drawings that explain FCOS, drawn from a model and a photograph: what centerness is, and how the
network goes from pixels to boxes. Every map in them is an activation of that model on that image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from ..analysis.common import with_files
from ..analysis.explain import Explanation, Story, explain
from ..demo.digits import photographs
from ..errors import DataError
from ..points import level_name, level_of
from ..show.axes import INK, MUTED, new_figure
from ..show.draw import Marks, draw_boxes, level_color
from ..system.progress import track
from .asked import Asked, Judged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..inference.detector import Detector

_SCORE = 0.5
_LOOK = 30  # images among which the clearest is chosen
_GROUND = "#f6f7f9"


@dataclass(frozen=True)
class Portraits:
    """The drawings: names of the files and of the image they show."""

    model: str
    image: str
    files: tuple[str, ...]
    story: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"model": self.model, "image": self.image, "files": list(self.files), "detection": self.story}

    def text(self) -> str:
        """For a terminal."""
        return f"{self.model} on {self.image}: {', '.join(self.files)}"


def portraits(detector: Detector, images: Sequence[Path], folder: Path) -> Portraits:
    """Write centerness.png and architecture.png for the image with the clearest large detection, and
    detections on several levels, among the first of `images`. Raises DataError where nothing is found."""
    from ..system.files import whole_set, write_whole

    best: tuple[float, Explanation, Story] | None = None
    images = images[:_LOOK]
    for image in track(images, len(images), "looking"):
        told = explain(detector, str(image), _SCORE)
        for story in told.stories:
            worth = story.score * clearness(story, told.image.shape[:2]) * len(set(told.levels)) ** 0.5
            if best is None or worth > best[0]:
                best = worth, told, story
    if best is None:
        raise DataError(f"nothing scores {_SCORE:g} or more in the {len(images)} images to draw")
    _, told, story = best
    with whole_set():
        write_whole(folder / "centerness.png", lambda path: draw_centerness(told, story, path))
        write_whole(folder / "architecture.png", lambda path: draw_architecture(detector, told, path))
    about = {k: v for k, v in vars(story).items() if k != "silenced"}
    return Portraits(detector.config.name, str(told.detections.source), ("centerness.png", "architecture.png"), about)


def clearness(story: Story, size: tuple[int, int]) -> float:
    """How well a box shows what it should, 0..1: a third of the image is best, with its location off the middle."""
    x1, y1, x2, y2 = story.box
    share = max(x2 - x1, 0) * max(y2 - y1, 0) / (size[0] * size[1])
    result: float = min(share / 0.33, 0.33 / max(share, 1e-9)) ** 0.5 * (1 if 0.4 < story.centerness < 0.9 else 0.7)
    return result


def target_map(box: tuple[float, ...], size: tuple[int, int]) -> np.ndarray:
    """Centerness of every pixel's middle [H,W] for a box xyxy, 0 outside (1904.01355, equation 3)."""
    x1, y1, x2, y2 = box
    x, y = np.arange(size[1])[None] + 0.5, np.arange(size[0])[:, None] + 0.5
    left, right, top, bottom = (v.clip(0) for v in (x - x1, x2 - x, y - y1, y2 - y))
    wide = np.minimum(left, right) / np.maximum(np.maximum(left, right), 1e-9)
    high = np.minimum(top, bottom) / np.maximum(np.maximum(top, bottom), 1e-9)
    result: np.ndarray = np.sqrt(wide * high)
    return result


def draw_centerness(told: Explanation, story: Story, path: Path) -> None:
    """Three panels: a detection with its location and four distances, the target of centerness in its box,
    and the centerness that the network gives on the detection's level."""
    image = told.image
    height, width = image.shape[:2]
    figure = new_figure(12.6, 3.85 * height / width + 0.85)
    panels = figure.subplots(1, 3)
    for axes in panels:
        axes.set_axis_off()
    number = next(i for i, s in enumerate(told.stories) if s is story)
    color = tuple(c / 255 for c in level_color(told.levels[number]))
    grey = _grey(image)

    panels[0].imshow(image)
    _box(panels[0], story.box, color, 2.4)
    x, y = story.location
    left, top, right, bottom = story.distances
    for name, dx, dy in (("l", -left, 0), ("r", right, 0), ("t", 0, -top), ("b", 0, bottom)):
        panels[0].annotate("", (x + dx, y + dy), (x, y), arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.8})
        panels[0].text(
            x + dx / 2,
            y + dy / 2,
            f"{name} {abs(dx + dy):.0f}",
            color="white",
            fontsize=10,
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": color, "edgecolor": "none"},
        )
    panels[0].plot([x], [y], "o", color=color, markersize=9, markeredgecolor="white", markeredgewidth=1.6, zorder=6)
    _title(panels[0], f"one location of {story.level} tells a box", f"{story.label}, score {story.score:.2f}")

    target = target_map(story.box, (height, width))
    panels[1].imshow(grey)
    panels[1].imshow(np.ma.masked_where(target <= 0, target), vmin=0, vmax=1, alpha=0.72)
    _box(panels[1], story.box, "white", 1.6)
    _title(panels[1], "what centerness should be in that box", "√(min(l,r)/max(l,r) · min(t,b)/max(t,b))")

    (_, _, heat), (wide, high) = next(m for m in zip(told.maps, told.extents, strict=True) if m[0][0] == story.level)
    panels[2].imshow(grey)
    shown = panels[2].imshow(heat, vmin=0, vmax=1, alpha=0.72, extent=(0, wide, high, 0), interpolation="nearest")
    _box(panels[2], story.box, "white", 1.6)
    panels[2].plot([x], [y], "o", color=color, markersize=7, markeredgecolor="white", markeredgewidth=1.4)
    _title(panels[2], f"what the network says, every location of {story.level}", f"{story.centerness:.2f} at the dot")
    for axes in panels:
        axes.set(xlim=(0, width), ylim=(height, 0))
    bar = figure.colorbar(shown, ax=panels, shrink=0.7, aspect=30, pad=0.01)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=MUTED)
    figure.savefig(path, format="png")


def draw_architecture(detector: Detector, told: Explanation, path: Path) -> None:
    """From the image to boxes: maps of the backbone and of the pyramid (mean size of the activation, each map
    on its own scale), the shared head, class probability and centerness of every level, and the detections.
    A network without backbone and pyramid (an exported one) shows only its outputs."""
    cfg = detector.config.model
    backbone, pyramid = feature_maps(detector, told.image)
    levels = len(told.maps)
    figure = new_figure(14.2, 1.5 + 1.32 * levels)
    grid = figure.add_gridspec(levels, 7, width_ratios=(2.1, 1.2, 1.2, 1.5, 1.2, 1.2, 2.1), wspace=0.1, hspace=0.02)
    image = figure.add_subplot(grid[:, 0])
    image.imshow(told.image)
    height, width = told.image.shape[:2]
    _, (rows, columns) = detector.prepare(told.image)
    _title(image, "image", f"{columns} x {rows} px to the network")

    offset = min(len(cfg.strides), len(pyramid)) - levels
    for i, (_, channels, values) in enumerate(backbone):
        row = next((k for k, s in enumerate(cfg.strides) if s == backbone[i][0]), i)
        axes = figure.add_subplot(grid[min(row, levels - 1), 1])
        _map(axes, values, "magma")
        name = f"C{level_of(backbone[i][0])}"
        _side(axes, f"{name}   {values.shape[1]} x {values.shape[0]} x {channels}")
        if i == 0:
            _head(axes, "backbone", cfg.backbone)
    for i, (stride, channels, values) in enumerate(pyramid):
        axes = figure.add_subplot(grid[i + offset, 2])
        _map(axes, values, "magma", level_color(i))
        _side(axes, f"{level_name(stride)}   {values.shape[1]} x {values.shape[0]} x {channels}")
        if i == 0:
            _head(axes, "pyramid (FPN)", f"strides {', '.join(map(str, cfg.strides))}")
    _head_box(figure.add_subplot(grid[:, 3]), detector)
    for i, (name, classes, centerness) in enumerate(told.maps):
        for column, values, title in ((4, classes, "class probability"), (5, centerness, "centerness")):
            axes = figure.add_subplot(grid[i, column])
            _map(axes, values, "viridis", level_color(i), (0.0, 1.0))
            _side(axes, name)
            if i == 0:
                _head(axes, title, "highest of the classes" if column == 4 else "how central?")
    drawn = figure.add_subplot(grid[:, 6])
    colors = [level_color(k) for k in told.levels]
    texts = [s.label for s in told.stories]
    drawn.imshow(draw_boxes(told.image, Marks(told.detections.boxes, range(len(texts)), texts, colors=colors)))
    _title(drawn, "boxes after NMS", "colour: the level that gave them")
    for axes in (image, drawn):
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(height, 0))
    for axes, x in ((image, 1.04), (drawn, -0.04)):
        axes.text(x, 0.5, "→", transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=17)
    figure.savefig(path, format="png")


Map = tuple[int, int, np.ndarray]  # stride, channels, mean absolute activation [h,w] on the image


def feature_maps(detector: Detector, image: np.ndarray) -> tuple[list[Map], list[Map]]:
    """Maps of the backbone and of the pyramid for an image [H,W,3], without the padding."""
    network: Any = detector.in_torch().network
    if not hasattr(network, "backbone"):
        return [], []
    tensor, size = detector.prepare(image)
    with torch.inference_mode():
        maps = network.backbone(network.normalize(tensor[None].to(detector.device)))
        levels = network.fpn(maps)
    padded = tensor.shape[-1]

    def row(x: torch.Tensor) -> Map:
        stride = 2 ** round(math.log2(padded / x.shape[-1]))
        values = x[0].float().abs().mean(dim=0).cpu().numpy()
        return stride, x.shape[1], values[: max(1, -(-size[0] // stride)), : max(1, -(-size[1] // stride))]

    return [row(x) for x in maps], [row(x) for x in levels]


def _head_box(axes: Axes, detector: Detector) -> None:
    """The head as two towers, with what each gives."""
    from matplotlib.patches import FancyBboxPatch

    cfg, classes = detector.config.model, len(detector.classes)
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.add_patch(
        FancyBboxPatch(
            (0.06, 0.1),
            0.88,
            0.8,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=_GROUND,
            edgecolor="#cbd5e1",
            mutation_aspect=0.4,
        )
    )
    for x in (-0.03, 1.03):
        axes.text(x, 0.5, "→", ha="center", va="center", color=MUTED, fontsize=17)
    axes.text(0.5, 0.86, "one head,\nthe same for\nall levels", ha="center", va="top", color=INK, fontsize=11)
    kind = "depthwise conv" if cfg.head_depthwise else "conv"
    convs = f"{cfg.head_convs} x {kind} {cfg.head_channels}"
    on_boxes = cfg.centerness_on == "regression"
    towers = (
        (
            0.6,
            "#2563eb",
            "classification",
            [f"{classes} class{'es' * (classes > 1)}", *([] if on_boxes else ["centerness"])],
        ),
        (0.3, "#db2777", "regression", ["l, t, r, b", *(["centerness"] if on_boxes else [])]),
    )
    for y, color, name, outputs in towers:
        axes.text(0.5, y, name, ha="center", va="bottom", color=color, fontsize=10, weight="bold")
        axes.text(0.5, y - 0.012, convs, ha="center", va="top", color=MUTED, fontsize=8)
        axes.text(0.5, y - 0.055, "→ " + "\n→ ".join(outputs), ha="center", va="top", color=INK, fontsize=9)


def _grey(image: np.ndarray) -> np.ndarray:
    """Without colour and contrast, so that a map on it can be read."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return (90 + 0.6 * grey).astype(np.uint8)


def _box(axes: Axes, box: tuple[float, ...], color: Any, line: float) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=line))


def _title(axes: Axes, text: str, under: str) -> None:
    axes.set_title(f"{text}\n", loc="left", color=INK, fontsize=11)
    axes.text(0, 1.02, under, transform=axes.transAxes, color=MUTED, fontsize=9, va="bottom")


def _head(axes: Axes, text: str, under: str) -> None:
    axes.set_title(f"{text}\n{under}", color=INK, fontsize=9)


def _side(axes: Axes, text: str) -> None:
    axes.set_xlabel(text, color=MUTED, fontsize=8, labelpad=2)


def _map(axes: Axes, values: np.ndarray, colors: str, frame: Any = None, limits: Any = (None, None)) -> None:
    axes.imshow(values, cmap=colors, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(frame is not None)
        if frame is not None:
            spine.set_color(tuple(c / 255 for c in frame))
            spine.set_linewidth(2)


def run(asked: Asked) -> Judged:
    """The study as it is asked for: images of a data set, else the photographs of the demo."""
    dataset, images = None, photographs()
    if asked.data is not None:
        dataset = asked.dataset()
        images = [r.path for r in with_files(dataset).records if r.path is not None]
    return dataset, portraits(asked.detector(), images, asked.out or Path("figures"))
