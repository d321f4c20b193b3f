"""What more time would bring, by a run's own curve: a sentence for its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.forecast import FEWEST, Between, fit, scatter
from ..system.terminal import plural

_BEGINS = 0.15  # share of the steps from which an evaluation counts: before, the rate still rises
_LESS = 2.0  # times the scatter, of an AP on the way: the rate had not fallen yet, as it has at a run's end
_WIDEST = 0.2  # AP, of an interval that still says something
_ASKED = (1, 2, 3, 5, 10, 15, 30, 60, 120, 240, 480, 960)  # minutes


@dataclass(frozen=True)
class Outlook:
    """What `minutes` more would add to AP."""

    minutes: int
    gain: Between

    def __str__(self) -> str:
        return f"{plural(self.minutes, 'more minute')}: {gained(self.gain)}, by this run's own curve"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"minutes": self.minutes, **self.gain._asdict()}


def gained(gain: Between) -> str:
    """As a person reads it beside the AP of a run, in its scale."""
    return f"{gain.value:+.3f} AP (90 % interval {gain.low:+.3f} to {gain.high:+.3f})"


def outlook(rows: Sequence[Mapping[str, str]], steps: int, seconds: float, error: float) -> Outlook | None:
    """The outlook of a run of so many steps and seconds from its metrics.csv, None where that cannot say.

    It asks about the largest round time that is no longer than the run: longer leaps are guesses. `error`: the standard
    error of the last AP, nan where it is not known. A curve needs three evaluations, the last of them at the end, and
    an AP above 0: a run that found nothing may have a fault that no time mends.
    """
    judged = {int(r["step"]): float(r["AP"]) for r in rows if r.get("AP")}
    seen = sorted((s, ap) for s, ap in judged.items() if s >= _BEGINS * steps and math.isfinite(ap))
    asked = [m for m in _ASKED if 60 * m <= seconds]
    if len(seen) < FEWEST or seen[-1][0] != steps or not asked or not any(ap for _, ap in seen):
        return None
    noise = scatter(error)
    curve = fit(
        [s / steps * seconds / 60 for s, _ in seen],
        [ap for _, ap in seen],
        [*(_LESS * noise for _ in seen[1:]), noise],
    )
    gain = curve.gain(seconds / 60, asked[-1], noise)
    return Outlook(asked[-1], gain) if gain.high - gain.low <= _WIDEST else None
