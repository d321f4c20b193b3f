"""Lines and zones, by hand."""

import numpy as np
import pytest

from fcos.errors import ConfigError
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
