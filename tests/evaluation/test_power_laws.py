"""Power laws with known truth: the interval holds it."""

import numpy as np
import pytest

from fcos.errors import ConfigError
from fcos.evaluation.forecast import fit

X = np.array([0.3, 0.55, 1.0])


def truth(rng):
    """A learning curve as they are: its ceiling, what is missing at x = 1, and its rate."""
    ceiling, missing, rate = rng.uniform(0.3, 0.9), rng.uniform(0.02, 0.25), rng.uniform(0.2, 1.2)
    return lambda x: ceiling - missing * np.asarray(x, float) ** -rate


@pytest.mark.parametrize("more", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("points", [X, np.array([1 / 8, 1 / 4, 1 / 2, 1.0])])
def test_the_interval_holds_the_truth_in_eight_of_ten_cases_and_more(points, more):
    rng, held, wide = np.random.default_rng(1), 0, []
    for _ in range(150):
        real = truth(rng)
        gain = fit(points, real(points) + rng.normal(0, 0.01, len(points))).gain(1.0, more)
        held += gain.low <= real(1.0 + more) - real(1.0) <= gain.high
        wide.append(gain.high - gain.low)
    assert held >= 0.8 * 150, held / 150
    assert np.median(wide) < 0.2  # an interval of everything would hold everything


def test_without_noise_the_curve_is_found():
    x = np.geomspace(0.05, 1, 9)
    gain = fit(x, 0.7 - 0.1 * x**-0.5, noise=0.0005).gain(1.0, 1.0)
    assert gain.value == pytest.approx(0.1 * (1 - 2**-0.5), abs=0.003)
    assert gain.high - gain.low < 0.01


def test_a_flat_curve_promises_little():
    gain = fit([0.25, 0.5, 1.0], [0.6, 0.6, 0.6]).gain(1.0, 1.0)
    assert 0 <= gain.low <= gain.value < 0.01


def test_units_change_nothing():
    ap = [0.4, 0.5, 0.55]
    one, other = fit([1, 2, 4], ap).gain(4, 4), fit([60, 120, 240], ap).gain(240, 240)
    assert one == pytest.approx(other, abs=0.002)
    assert one.low <= one.value <= one.high


def test_two_points_are_no_curve():
    with pytest.raises(ConfigError, match="3 different amounts"):
        fit([1, 2, 2], [0.1, 0.2, 0.2])
