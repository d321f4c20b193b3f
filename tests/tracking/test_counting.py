"""Lines and zones, by hand."""

import numpy as np
import pytest

from fcos.errors import ConfigError
from fcos.tracking import counting
from fcos.tracking.counting import parse_line, parse_zone, within


def walk(counter, *feet, number=1, name="cat"):
    for x, y in feet:
        counter.update([number], [name], np.array([[x - 5, y - 10, x + 5, y]], float))


def test_who_crosses_a_line_counts_once_each_way():
    line = parse_line("0,100,200,100")  # from left to right: its right side is below
    walk(line, (50, 80), (50, 95), (50, 105), (50, 120))
    assert (line.entered["cat"], line.left["cat"]) == (1, 0)
    walk(line, (60, 90))
    assert (line.entered["cat"], line.left["cat"]) == (1, 1)


def test_standing_on_the_line_is_not_crossing():
    line = parse_line("0,100,200,100")
    walk(line, (50, 90), (50, 100), (50, 90), (50, 100), (50, 110))
    assert (line.entered["cat"], line.left["cat"]) == (1, 0)


def test_beyond_the_ends_nothing_counts():
    line = parse_line("0,100,200,100")
    walk(line, (250, 80), (250, 120))
    assert not line.entered


def test_of_millions_of_objects_the_last_are_remembered(monkeypatch):
    """A camera runs for months; what was counted stays."""
    monkeypatch.setattr(counting, "KEPT", 20)
    line, zone = parse_line("0,100,200,100"), parse_zone("0,0,200,0,200,100,0,100")
    stays = 0
    for number in range(1, 101):
        for counter in (line, zone):
            walk(counter, (50, 80), (50, 120), number=number)
            walk(counter, (90, 50), number=stays, name="dog")  # in sight all the time
            walk(counter, (20, 40), number=1000 + number)  # lost inside
    assert dict(line.entered) == {"cat": 100}
    assert dict(zone.left) == {"cat": 100}
    assert dict(zone.entered) == {"cat": 200, "dog": 1}
    assert zone.inside == 101
    assert len(line._last) == len(zone._known) == 20
    assert len(zone._inside) <= 20
    assert stays in zone._inside


def test_who_stands_at_the_edge_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(counting, "KEPT", 5)
    line, zone = parse_line("0,100,200,100", 0.5), parse_zone("0,0,200,0,200,100,0,100", 0.5)
    walk(line, (50, 120), (50, 80))
    walk(zone, (50, 50))
    for number in range(2, 20):
        walk(line, (50, 102), number=1)  # back over the line by less than half of the height
        walk(zone, (50, 102), number=1)
        walk(line, (90, 20), number=number)
        walk(zone, (90, 300), number=number)
    walk(line, (50, 120))
    walk(zone, (50, 50))
    assert (dict(line.entered), dict(line.left)) == ({"cat": 1}, {"cat": 1})
    assert (dict(zone.entered), zone.inside) == ({"cat": 1}, 1)


def test_objects_and_classes_apart():
    line = parse_line("0,100,200,100")
    walk(line, (50, 80), (50, 120), number=1, name="cat")
    walk(line, (90, 120), (90, 80), number=2, name="dog")
    assert dict(line.entered) == {"cat": 1}
    assert dict(line.left) == {"dog": 1}


def test_a_zone_counts_who_comes_and_goes():
    zone = parse_zone("0,0,100,0,100,100,0,100")
    walk(zone, (50, 50))
    assert (zone.entered["cat"], zone.inside) == (1, 1)
    walk(zone, (150, 50), (50, 50), (60, 50))
    assert (zone.entered["cat"], zone.left["cat"], zone.inside) == (2, 1, 1)


def test_who_is_first_seen_just_inside_a_zone_came_in():
    zone = parse_zone("0,0,100,0,100,100,0,100")
    walk(zone, (50, 99.9))  # the margin is half a pixel
    assert (zone.entered["cat"], zone.inside) == (1, 1)


def test_who_leaves_a_zone_leaves_as_what_it_came_in():
    zone = parse_zone("0,0,100,0,100,100,0,100")
    walk(zone, (50, 50), name="car")
    walk(zone, (60, 50), (150, 50), name="truck")
    assert (dict(zone.entered), dict(zone.left)) == ({"car": 1}, {"car": 1})


@pytest.mark.parametrize(("point", "inside"), [((5, 5), True), ((15, 5), False), ((5, 12), True), ((12, 12), False)])
def test_inside_a_bent_polygon(point, inside):
    """An L: 10 wide and 20 high, with a foot to the right at the top."""
    assert within(point, [(0, 0), (20, 0), (20, 4), (10, 4), (10, 20), (0, 20)]) is inside


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,1,2", "a,b,c,d", "nan,0,1,1", "1e300,0,1,1"])
def test_what_is_no_line(text):
    with pytest.raises(ConfigError, match="--count-line"):
        parse_line(text)


@pytest.mark.parametrize("text", ["", "1,2,3,4", "1,2,3,4,5", "a,b,c,d,e,f"])
def test_what_is_no_zone(text):
    with pytest.raises(ConfigError, match="--zone"):
        parse_zone(text)


def trembling(counter, noise, *, at=100.0, height=100.0, frames=300):
    """Somebody of `height` who stands at y = `at`, seen with a tremble of at most `noise` heights."""
    rng = np.random.default_rng(5)
    for y in at + height * noise * rng.uniform(-1, 1, frames):
        counter.update([1], ["cat"], np.array([[45, y - height, 55, y]]))
    return counter.entered.total() + counter.left.total()


@pytest.mark.parametrize(
    "parse", [lambda **k: parse_line("0,100,200,100", **k), lambda **k: parse_zone("0,100,200,100,200,300,0,300", **k)]
)
@pytest.mark.parametrize("height", [20, 400])
def test_who_stands_at_an_edge_and_trembles_is_not_counted_again(parse, height):
    assert trembling(parse(), 0.049, height=height) <= 1  # where it is at first may count for a zone
    assert trembling(parse(margin=0), 0.049, height=height) > 50


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(
    "parse", [lambda: parse_line("0,100,200,100"), lambda: parse_zone("0,100,200,100,200,300,0,300")]
)
def test_a_slow_and_trembling_walk_counts_once(parse, direction):
    counter, rng = parse(), np.random.default_rng(6)
    for y in np.linspace(100 - direction * 30, 100 + direction * 30, 200) + 100 * rng.uniform(-0.04, 0.04, 200):
        counter.update([1], ["cat"], np.array([[45, y - 100, 55, y]]))
    came = counter.entered.total() if direction > 0 else counter.left.total()
    assert came == 1
    assert counter.entered.total() <= 1


def test_the_margin_by_hand():
    """A box of 100: over the line from 5 pixels beyond it on, which is back again only 5 pixels on this side."""
    line, zone = parse_line("0,100,200,100"), parse_zone("0,100,200,100,200,300,0,300")
    seen = []
    for y in (90, 104, 99, 104.9, 105, 96, 95, 104):
        for counter in (line, zone):
            counter.update([1], ["cat"], np.array([[45, y - 100, 55, y]]))
        seen.append((line.entered["cat"], line.left["cat"], zone.entered["cat"], zone.left["cat"]))
    assert seen == [(0, 0, 0, 0)] * 4 + [(1, 0, 1, 0)] * 2 + [(1, 1, 1, 1)] * 2


def test_a_corner_of_a_zone_is_as_far_as_it_is():
    zone = parse_zone("0,0,100,0,100,100,0,100")
    walk_in = [(150, 150), (99.6, 99.6), (99, 99), (100.3, 100.3), (100.4, 100.4)]  # half a pixel of a box of 10
    seen = []
    for point in walk_in:
        walk(zone, point)
        seen.append(zone.inside)
    assert seen == [0, 0, 1, 1, 0]


def test_the_command_and_python_have_one_margin():
    import inspect

    from fcos.cli.track import command
    from fcos.tracking.counting import MARGIN

    assert inspect.signature(command).parameters["margin"].default == MARGIN
