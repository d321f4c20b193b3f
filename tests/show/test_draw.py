"""Drawing: the input stays as it was, everything drawn is inside the image and can be told apart."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import fcos, make_shapes

from fcos.detections import Detections
from fcos.errors import ImageWarning
from fcos.show import draw, fonts

SIGN = "\u24cb"  # a V in a circle: STIX, which comes with matplotlib too, has it, DejaVu Sans has not
NAMES = ("cat", "a rather long class name", "naïve façade", "диван", "x")


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 120, np.uint8)


def found(count: int, height: int, width: int, seed: int = 0) -> Detections:
    rng = np.random.default_rng(seed)
    start = rng.uniform(-0.2, 1, (count, 2)) * [width, height]
    boxes = np.concatenate([start, start + rng.uniform(0, 0.5, (count, 2)) * [width, height]], 1)
    return Detections(
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(rng.uniform(0.3, 1, count), dtype=torch.float32),
        torch.tensor(rng.integers(0, len(NAMES), count)),
        torch.zeros(count, dtype=torch.int64),
        names=NAMES,
    )


@pytest.mark.parametrize("size", [(1, 1), (8, 5), (100, 100), (60, 900), (900, 40), (1500, 2000)])
@pytest.mark.parametrize("count", [0, 1, 60])
def test_any_size_and_count(size: tuple[int, int], count: int) -> None:
    image = grey(*size)
    before = image.copy()
    some = found(count, *size)
    drawn = draw.draw_boxes(
        image, draw.Marks(some.boxes, some.labels, NAMES, some.scores, ignore=np.arange(count) % 2 == 1)
    )
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (image == before).all()
    assert not np.shares_memory(drawn, image)
    if count == 0:
        assert (drawn == before).all()


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((np.nan, 0, 5, 5), "not a number"),
        ((np.inf, 0, np.inf, 5), "infinite"),
        ((-50, -50, -1, -1), "left of the image"),
        ((300, 0, 400, 50), "right of the image"),
    ],
)
def test_boxes_that_cannot_be_seen_are_left_out(box: tuple[float, ...], reason: str) -> None:
    assert (draw.draw_boxes(grey(100, 200), draw.Marks([box], [0], NAMES)) == 120).all(), reason


@pytest.mark.parametrize(
    "box", [(50, 50, 51, 51), (50, 50, 50, 50), (0, 0, 200, 100), (199, 99, 200, 100), (-1e12, 20, 1e12, 80)]
)
def test_boxes_at_the_limits_are_drawn(box: tuple[float, ...]) -> None:
    drawn = draw.draw_boxes(grey(100, 200), draw.Marks([box], [0], NAMES))
    assert (drawn == draw.label_color(0)).all(2).sum() > 10


def test_frame_of_a_box_on_the_border_is_whole() -> None:
    drawn = draw.draw_boxes(grey(300, 300), draw.Marks([(0, 0, 300, 300)], [4], NAMES))
    painted = (drawn == draw.label_color(4)).all(2)
    for edge in (painted[:2], painted[-2:], painted[:, :2].T, painted[:, -2:].T):
        assert edge.any(0).mean() > 0.8


@pytest.mark.parametrize("seed", range(20))
def test_tags_stay_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = rng.integers(30, 400, 2)
    box = rng.uniform(-100, 500, 4)
    size = int(rng.integers(5, width)), int(rng.integers(5, height))
    x, y = draw._place(np.sort(box.reshape(2, 2), 0).ravel(), size, np.zeros((0, 4)), (width, height), 2)
    assert 0 <= x <= width - size[0]
    assert 0 <= y <= height - size[1]
    tag = draw._tag("a long name that goes on and on 0.95", (9, 9, 9), 20.0, int(width), int(height))
    assert tag.width <= width
    assert tag.height <= height


def test_tags_of_boxes_at_one_place_do_not_cover_each_other() -> None:
    box = np.array([100.0, 100, 200, 200])
    taken = np.zeros((0, 4))
    for _ in range(4):
        x, y = draw._place(box, (60, 14), taken, (400, 400), 2)
        spot = np.array([x, y, x + 60, y + 14])
        across = np.minimum(taken[:, 2], spot[2]) - np.maximum(taken[:, 0], spot[0])
        down = np.minimum(taken[:, 3], spot[3]) - np.maximum(taken[:, 1], spot[1])
        assert (across.clip(0) * down.clip(0) < 0.1 * 60 * 14).all()
        taken = np.vstack([taken, spot])


def test_colors_can_be_told_apart() -> None:
    for palette, least in ((draw.PALETTE, 40), (draw.LEVELS, 80)):
        distance = [np.linalg.norm(np.subtract(a, b)) for a, b in itertools.combinations(palette, 2)]
        assert min(distance) > least
    assert draw.label_color(len(draw.PALETTE)) == draw.label_color(0)


def test_own_colors_and_ignored() -> None:
    boxes = [(50, 50, 150, 150), (180, 50, 280, 150)]
    drawn = draw.draw_boxes(grey(200, 300), draw.Marks(boxes, [0, 1], NAMES, colors=[(1, 2, 3), (4, 5, 6)]))
    assert (drawn == (1, 2, 3)).all(2).any()
    assert (drawn == (4, 5, 6)).all(2).any()
    solid = draw.draw_boxes(grey(200, 300), draw.Marks(boxes[:1], [0]))
    dashed = draw.draw_boxes(grey(200, 300), draw.Marks(boxes[:1], [0], ignore=[True]))
    assert not (dashed == draw.label_color(0)).all(2).any()
    assert (dashed == draw.GREY).all(2)[149:152].sum() < (solid == draw.label_color(0)).all(2)[149:152].sum()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1 boxes but 2 labels"):
        draw.draw_boxes(grey(9, 9), draw.Marks([(0, 0, 5, 5)], [0, 1]))
    with pytest.raises(ValueError, match=r"uint8 \[H,W,3\]"):
        draw.draw_boxes(grey(9, 9).astype(np.float32), draw.Marks([], []))


def test_draw_detections_takes_every_kind_of_image(tmp_path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    some = found(5, 80, 120)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = np.array(draw.draw_detections(image, some))
    assert (expected != image).any()
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image), tensor, tensor / 255):
        assert (np.array(draw.draw_detections(source, some)) == expected).all()
    assert (np.array(draw.draw_detections(image, some, score=1.1)) == image).all()
    assert (np.array(some.draw(image)) == expected).all()
    assert draw.draw_detections(image[..., 0], Detections.empty()).size == (120, 80)


def test_sheet() -> None:
    images = [grey(50, 100), grey(200, 40), grey(64, 64)]
    made = draw.sheet(images, columns=2, titles=["a", "b", "a title too long for its column" * 3], cell=100)
    assert made.dtype == np.uint8
    assert (made == 120).all(2).sum() == 100 * 50 + 20 * 100 + 100 * 100
    assert draw.sheet([]).shape[2] == 3
    assert draw.sheet(images[:1]).shape[2] == 3
    with pytest.raises(ValueError, match="3 images but 1 titles"):
        draw.sheet(images, titles=["a"])


def test_cells_of_a_sheet_are_alike() -> None:
    """The frame of half an image has as many pixels across, and its tag as many down, whatever image it was."""
    widths, heights = set(), set()
    for height, width in ((60, 80), (375, 500), (500, 375), (3000, 4000)):
        marks = draw.Marks([(0.2 * width, 0.4 * height, 0.8 * width, 0.9 * height)], [0], NAMES)
        drawn = draw.draw_cell(grey(height, width), marks, 400)
        assert max(drawn.shape) == 400
        painted = (drawn == draw.label_color(0)).all(2)
        widths.add(int(painted[round(0.65 * drawn.shape[0])].sum()))
        rows = np.flatnonzero(painted[:, : drawn.shape[1] // 2].any(1))
        heights.add(int(0.9 * drawn.shape[0]) - int(rows.min()) - int(0.5 * drawn.shape[0]))
    assert len(widths) == 1, widths
    assert max(heights) - min(heights) <= 2, heights
    assert min(widths) >= 4  # two lines, neither of them a hair


def test_many_boxes_in_a_large_image_leave_it_to_be_seen() -> None:
    """Four hundred boxes on a grid: tags and frames hide less than half of it; they had hidden nearly all."""
    place = np.arange(20) * 100.0 + 20
    corners = np.array([(x, y) for y in place for x in place], np.float32)
    boxes = np.concatenate((corners, corners + 60), axis=1)
    drawn = draw.draw_boxes(
        grey(2000, 2000), draw.Marks(boxes, np.zeros(400, np.int64), ("person",), np.full(400, 0.5))
    )
    assert (drawn != 120).any(axis=2).mean() < 0.5


@pytest.fixture
def no_fonts_known(monkeypatch):
    monkeypatch.setattr(fonts, "_told", set())
    fonts._best.cache_clear()
    yield
    fonts._best.cache_clear()


def test_what_the_usual_font_lacks_another_of_the_system_writes(monkeypatch, no_fonts_known):
    usual = fonts.font_file("cat")
    stix = usual.parent / "STIXGeneral.ttf"
    monkeypatch.setattr(fonts, "_system", lambda: (usual.parent / "no font.ttf", stix))
    assert fonts.font_file("диван") == usual
    assert fonts.font_file(f"cat {SIGN}") == stix
    assert fonts.families(["cat", SIGN]) == ["DejaVu Sans", "STIXGeneral"]


def test_a_plot_takes_as_many_fonts_as_its_names_need_and_names_what_none_has(monkeypatch, no_fonts_known, recwarn):
    """DejaVu Sans has the Arabic letters, one font the first Chinese sign, another the second, none the cat's face."""
    usual = fonts.font_file("cat")
    signs = {
        usual: frozenset("عربé"),
        usual.parent / "STIXGeneral.ttf": frozenset("日é"),
        usual.parent / "cmr10.ttf": frozenset("本"),
    }
    monkeypatch.setattr(fonts, "_system", lambda: tuple(signs)[1:])
    monkeypatch.setattr(fonts, "_has", signs.__getitem__)
    for _ in range(2):
        assert fonts.families(["日本", "عرب", "é", "🐱"]) == ["DejaVu Sans", "STIXGeneral", "cmr10"]
    assert fonts.font_file("日é").name == "STIXGeneral.ttf"
    assert fonts.font_file("عرب🐱") == usual
    (told,) = [w for w in recwarn if issubclass(w.category, ImageWarning)]
    assert "no font here can write 🐱:" in str(told.message)


def test_signs_that_no_font_has_are_told_of_once(monkeypatch, no_fonts_known, recwarn):
    monkeypatch.setattr(fonts, "_system", lambda: ())
    for _ in range(3):
        assert fonts.font_file(SIGN) == fonts.font_file("cat")
    (told,) = [w for w in recwarn if issubclass(w.category, ImageWarning)]
    assert f"no font here can write {SIGN}" in str(told.message)


def test_a_command_says_once_that_there_is_no_font(monkeypatch, no_fonts_known, recwarn, capsys, tmp_path):
    """matplotlib says so of each sign that it draws."""
    make_shapes(tmp_path / "set", {"train": 3})
    file = tmp_path / "set" / "instances_train.json"
    file.write_text(file.read_text().replace("disc", SIGN))
    monkeypatch.setattr(fonts, "_system", lambda: ())
    code, _, err = fcos(capsys, "doctor", tmp_path / "set", "--out", tmp_path / "page.html")
    assert code in (0, 1), err
    assert err.count(f"no font here can write {SIGN}") == 1
    assert "Glyph" not in err + "".join(str(w.message) for w in recwarn)


def test_a_long_name_is_cut_and_an_empty_one_has_no_tag():
    box = [(60, 60, 200, 200)]
    plain = draw.draw_boxes(grey(300, 900), draw.Marks(box, [0], ["a" * 22]))
    long = draw.draw_boxes(grey(300, 900), draw.Marks(box, [0], ["a" * 60]))
    none = draw.draw_boxes(grey(300, 900), draw.Marks(box, [0], [""]))
    widths = [int((d != 120).any(2).any(0).sum()) for d in (none, plain, long)]
    assert widths[0] < 150 < widths[1]
    assert abs(widths[2] - widths[1]) < 12


def test_a_legend_stands_over_the_picture():
    entries = [(f"what colour {k} stands for", (k, 200, 0)) for k in range(5)]
    drawn = draw.with_legend(grey(100, 300), entries)
    assert (drawn[-100:] == 120).all()
    for _, color in entries:
        assert (drawn[:-100] == color).all(2).any()


def test_a_wide_image_of_a_page_scrolls_on_a_telephone(tmp_path):
    from fcos.show.page import Page

    page = Page("a page")
    for name, width in (("narrow", 640), ("wide", 1600)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), grey(40, width))
        assert page.file(tmp_path / f"{name}.png", name)
    assert [part for part in page.parts if part.startswith("<figure")] == ["<figure>", "<figure class='big'>"]


def test_plots_write_any_class_name(tmp_path):
    """Dollars are no formula, and an underscore in front hides no class from the legend."""
    from fcos.show import run_plots
    from fcos.show.axes import class_name, new_figure

    names = ("$_$", r"$\foo$", "_background_", "a_b")
    told = run_plots.Labels(
        [3, 2, 1, 1], names, np.array([1, 2]), np.ones((7, 2)) * 20, np.ones((7, 2)) / 2, np.zeros(7, int), (8, 16)
    )
    run_plots.labels(told, tmp_path / "labels.png")
    figure = new_figure(4, 4)
    axes = figure.add_subplot()
    for name in names:
        axes.plot([0, 1], [0, 1], label=class_name(name))
    figure.savefig(tmp_path / "legend.png")
    assert len(axes.get_legend_handles_labels()[0]) == len(names)
