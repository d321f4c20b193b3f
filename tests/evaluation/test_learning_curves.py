"""Learning curves with known truth: the interval holds it."""

import numpy as np
import pytest

from fcos.errors import ConfigError
from fcos.evaluation.forecast import NOISE, fit, scatter

X = np.array([0.3, 0.55, 1.0])
CURVES = 40


def power_law(rng):
    """A learning curve as they are: its ceiling, what is missing at x = 1, and its rate."""
    ceiling, missing, rate = rng.uniform(0.3, 0.9), rng.uniform(0.02, 0.25), rng.uniform(0.2, 1.2)
    return lambda x: ceiling - missing * np.asarray(x, float) ** -rate


def late(rng):
    """One that has hardly begun: from nothing, faster and faster, then slower and slower up to its ceiling."""
    ceiling, middle, wide = rng.uniform(0.3, 0.9), rng.uniform(0.0, 1.0), rng.uniform(0.5, 1.5)
    return lambda x: ceiling / (1 + np.exp((middle - np.log(np.asarray(x, float))) / wide))


def bent(rng):
    """One of a shape that no curve of `fit` has: the share that is missing falls exponentially."""
    ceiling, scale, power = rng.uniform(0.3, 0.9), rng.uniform(0.2, 3.0), rng.uniform(0.5, 1.2)
    return lambda x: ceiling * (1 - np.exp(-((np.asarray(x, float) / scale) ** power)))


@pytest.mark.parametrize("truth", [power_law, late, bent])
@pytest.mark.parametrize(
    ("points", "more", "noise"),
    [
        (X, 0.5, 0.01),
        (X, 3.0, 0.01),
        (X, 1.0, 0.03),
        ([1 / 8, 1 / 4, 1 / 2, 1], 1.0, 0.01),
        (np.linspace(0.15, 1, 30), 1.0, 0.01),
    ],
)
def test_the_interval_holds_the_truth(truth, points, more, noise):
    """In eight of ten cases and more: what is seen of the gain when one more run is judged, and the mean gain. Of a
    shape that it does not know in six of ten."""
    points = np.asarray(points)
    rng, held, seen, wide, gains = np.random.default_rng(1), 0, 0, [], []
    for _ in range(CURVES):
        real = truth(rng)
        measured = real(points) + rng.normal(0, noise, len(points))
        curve = fit(points, measured, noise)
        gain, told = curve.gain(1.0, more), curve.gain(1.0, more, noise)
        gains.append(real(1.0 + more) - real(1.0))
        held += gain.low <= gains[-1] <= gain.high
        seen += told.low <= real(1.0 + more) + rng.normal(0, noise) - measured[-1] <= told.high
        wide.append(gain.high - gain.low)
        assert told.low <= gain.low <= gain.value == told.value <= gain.high <= told.high
    assert truth is bent or held >= 0.8 * CURVES, held / CURVES
    assert seen >= (0.6 if truth is bent else 0.8) * CURVES, seen / CURVES
    assert np.median(wide) < 2 * np.median(gains) + 2 * noise  # one of everything would hold everything


def test_a_point_that_is_less_sure_counts_less():
    x, ap = [0.25, 0.5, 1.0, 2.0], [0.4, 0.5, 0.2, 0.56]
    trusted, doubted = fit(x, ap, 0.02), fit(x, ap, [0.02, 0.02, 1.0, 0.02])
    assert abs(doubted.at(1.0).value - 0.54) < 0.02 < abs(trusted.at(1.0).value - 0.54)


def test_the_scatter_grows_as_images_to_judge_by_get_fewer():
    assert scatter(0.0) == scatter(float("nan")) == NOISE
    assert scatter(0.01) < scatter(0.05) < 0.05


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


@pytest.mark.parametrize("ap", [[0.9, 0.5, 0.1], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
def test_points_that_no_curve_fits_have_a_forecast_too(ap):
    gain = fit([1, 2, 4], ap, 1e-5).gain(4, 4)
    assert 0 <= gain.low <= gain.value <= gain.high <= 1


def test_two_points_are_no_curve():
    with pytest.raises(ConfigError, match="3 different amounts"):
        fit([1, 2, 2], [0.1, 0.2, 0.2])
