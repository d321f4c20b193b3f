"""A step whose loss or gradient is not finite: kept whole, and told in a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from torch import nn

from ..errors import FcosError, OtherProcess
from ..types import Losses
from .distributed import gather, together
from .output.step_file import StepRecord, save_step
from .run import RunContext


class NotFinite(FcosError):
    """A loss or gradient that is NaN or infinite."""


def stop(network: nn.Module, step: StepRecord, facts: Mapping[str, Any], context: RunContext) -> NoReturn:
    """Keep the step whole on the processes whose losses are not finite, or on the first, and raise NotFinite.

    `facts` go into the file: `step` and `grad_norm` among them, which the line names.
    """
    number, world = int(facts["step"]), context.world
    terms = [t for t in Losses._fields if not all(math.isfinite(float(getattr(part, t))) for part in step.losses)]
    of_each = gather(terms, world)
    rank = next((r for r, terms in enumerate(of_each) if terms), 0)
    files = [context.folder.path / f"nan-{number:08d}{f'-process{r}' if r else ''}.pt" for r in range(world)]
    mine = files[context.rank]
    together(lambda: save_step(mine, network, step, facts) if terms or context.rank == rank else None, world)
    what = (
        f"the {' and '.join(of_each[rank])} loss" if of_each[rank] else f"the gradient (norm {facts['grad_norm']:.4g})"
    )
    raise (NotFinite if context.first else OtherProcess)(
        f"step {number}: {what} is not finite, and the weights are as they were before; "
        f"fcos train --replay {files[rank]} shows where it begins. Lower train.lr, or set train.clip=10 or "
        "train.precision=fp32"
    )
