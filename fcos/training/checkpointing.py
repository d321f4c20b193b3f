"""What a run keeps in its folder, and how it goes on from that: checkpoints, and the weights to ship."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from torch import Tensor

from ..config import Config, from_dict
from ..errors import ConfigError, FcosError, ImageError
from ..network import weights
from ..network.model import FCOS
from ..system.environment import environment
from ..system.files import disk_reason
from ..system.stop import go_on
from ..system.terminal import plural
from .clock import Deadline
from .distributed import gather, together
from .judging import Judge, how_judged
from .learner import Learner
from .output.checkpoint import check_resumable, checkpoints, fill, load_optimizer, save_checkpoint
from .output.images import RunImages
from .output.saving import Saver, copied
from .output.store import Away
from .run import RunOptions

_APART = 20.0  # seconds from a checkpoint to that of the end of an epoch which nothing judged


class Keeper(Learner):
    """A learner whose state is kept.

    `data_hash` and `val_hash` are of the images learned from and judged by, None where nothing judges. `saved_at` is
    what `_now` was at the newest checkpoint, None before the first, `saved_when` the time of it. `seconds` is how long
    the run took before this process, which `began` then.
    """

    options: RunOptions
    saver: Saver
    away: Away
    images: RunImages
    judging: Judge
    deadline: Deadline | None
    data_hash: str
    val_hash: str | None
    saved_at: tuple[int, int, bool] | None
    saved_when: float
    seconds: float
    began: float

    @property
    def shipped(self) -> FCOS:
        """The network that is evaluated and shipped: the average where there is one."""
        return self.average.network if self.average is not None else self.network

    def about(self) -> tuple[Config, dict[str, Any]]:
        """What goes with the weights to ship: their settings, and where they come from. The AP is that of these
        weights, None where they were not judged; the score that they show from is then that of those judged before."""
        config = self.config
        if config.decode.shown is None and self.judging.shown is not None:
            config = config.override({"decode": {"shown": self.judging.shown}})
        ap = self.judging.ap if self.judging.at == self.step else None
        return config, {"step": self.step, "AP": None if ap is None or math.isnan(ap) else ap}

    def export(self, name: str, state: Mapping[str, Tensor], about: tuple[Config, dict[str, Any]]) -> None:
        """Write NAME.safetensors: weights `state`, and what `about` says of them."""
        config, facts = about
        weights.save(self.folder.path / f"{name}.safetensors", state, config, self.classes, about=facts)

    def save(self) -> None:
        """Everything needed to go on, unless the newest checkpoint has it; written by the first process, in a thread
        (`Saver`): `together(self.saver.wait, ...)` where the files must be there."""
        now = self._now
        if self.saved_at == now:
            return
        normalizer = gather(self.normalizer, self.world)  # of each process, where they count apart

        def write() -> None:
            state = {
                "trainer": type(self).__qualname__,
                "config": self.config.model_dump(mode="json"),
                "classes": {"names": list(self.classes.names), "ids": list(self.classes.ids)},
                "model": self.network.state_dict(),
                "average": self.average.network.state_dict() if self.average else None,
                "optimizer": self.optimizer.state_dict(),
                **self.judging.state(),
                "normalizer": normalizer,
                "data": self.data_hash,
                "val": self.val_hash,
                "seconds": self.elapsed(),
                "total": self.total,
                "plain_from": self.sampler.plain_from if self.total < self.sampler.total_steps else None,
                "deadline": None if self.deadline is None else self.deadline.stored(),
            }
            self.saver.start(partial(self.write, self.step, copied(state), self.about()))

        together(lambda: write() if self.first else None, self.world)
        self.saved_at, self.saved_when = now, time.perf_counter()

    def worth_saving(self) -> bool:
        """Whether to save at this end of an epoch: if it was judged, is the last, or comes some seconds after the last
        checkpoint. On a few images an epoch is as quick as its checkpoint. The first process's clock counts for all."""
        if self.saved_at is None or self.step in (self.judging.at, self.total):
            return True
        return bool(self.fabric.broadcast(time.perf_counter() - self.saved_when >= _APART))

    def write(self, step: int, state: dict[str, Any], about: tuple[Config, dict[str, Any]]) -> None:
        """The files of a checkpoint, from a copy of the state: the steps go on meanwhile."""
        save_checkpoint(self.folder.path, step, state)
        self.export("last", state["average"] or state["model"], about)
        self.away.push()

    @contextmanager
    def told_how_to_go_on(self) -> Iterator[None]:
        """Inside, the line of an error that the run is not to blame for, images or a disk that went away, ends with how
        to go on. Where images went away, the steps that are done are kept first; of several processes the others are
        in the middle of one."""
        try:
            yield
        except FcosError as error:
            images = isinstance(error, ImageError)
            if not images and (error.__cause__ is None or disk_reason(error.__cause__) is None):
                raise
            if images:
                self._keep_what_can_be()
            if not checkpoints(self.folder.path):
                raise
            first = "once they can be read, " if images else ""
            raise type(error)(f"{error}; {first}{go_on(self.kept)}") from error

    @contextmanager
    def kept_first(self) -> Iterator[None]:
        """Inside, what a caller's function raises goes on once the steps that are done are kept."""
        try:
            yield
        except BaseException:
            self._keep_what_can_be()
            raise

    def _keep_what_can_be(self) -> None:
        """A checkpoint on the way out of an error; none of several processes, of which the others do not know."""
        if self.world == 1:
            with suppress(FcosError):  # the run may lie on the same disk; the checkpoint before stays
                self.save()
                self.saver.wait()

    @property
    def _now(self) -> tuple[int, int, bool]:
        """What tells two checkpoints of a run apart: the steps, and what was judged."""
        return self.step, self.judging.at, self.judging.start_due

    @property
    def kept(self) -> str:
        """Where the run is kept, for a person: its folder or its URL."""
        return self.options.url or str(self.folder.path)

    def elapsed(self) -> float:
        """Seconds of the run, those before a resume included."""
        return self.seconds + time.perf_counter() - self.began

    def taken(self) -> float:
        """The same with the plan of a run in a given time, and the start of its process."""
        return max(self.elapsed(), 0.0 if self.deadline is None else self.deadline.spent())

    def begin(self, stored: Mapping[str, Any] | None) -> None:
        """Open the run folder, or go on from what is stored there."""
        if stored is None:
            names, sources = list(self.classes.names), dict(self.options.sources)
            self.folder.start(environment(self.data, classes=names, sources=sources, processes=self.world))
        else:
            self.restore(stored)
        self.images.begin()

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Everything as the checkpoint has it, but for what was asked to be otherwise from here on."""
        mine, other = type(self).__qualname__, stored["trainer"]
        if mine != other:  # it would go on by other rules without a word
            raise ConfigError(
                f"{self.folder.path} is a run of {other}, not of {mine}: make that trainer again, with "
                "RunOptions(out, resume=True)"
            )
        lines = check_resumable(stored, self.config, self.classes, self.data_hash, self.kept)
        for line in (*stored["damaged"], *lines):
            self.console.note(line)
        fill(self.network, stored["model"], stored["file"])
        if self.average is not None:
            fill(self.average.network, stored["average"] or stored["model"], stored["file"])
        load_optimizer(self.optimizer, stored["optimizer"])
        self.step, self.seconds = stored["step"], float(stored["seconds"])
        if stored["normalizer"] is not None:  # one for each process
            self.normalizer = stored["normalizer"][self.context.rank % len(stored["normalizer"])]
        self.judging.restore(stored)
        before = from_dict(stored["config"], stored["file"])
        as_planned = self._restore_plan(stored, before)
        anew = self._judged_otherwise(stored["val"] or self.folder.val_hash(), before)  # 1.0.0 kept it there alone
        if as_planned:  # else the next resume has to know what was asked for
            self.saved_at = self._now
        self.folder.rewind(self.step - self.judging.start_due, judged=not anew)

    def _restore_plan(self, stored: Mapping[str, Any], before: Config) -> bool:
        """The stored clock and length of a run that goes on as it was planned; False for one that is made longer or
        shorter, with settings other than those of `before` or for more minutes."""
        now = self.config.train
        same = (before.train.iterations, before.train.epochs) == (now.iterations, now.epochs)
        done, asked = stored["step"], self.sampler.total_steps
        if not same and asked < done:
            told = f"{plural(now.epochs, 'epoch')} is {asked:,}" if not now.iterations else f"{asked:,} were asked for"
            raise ConfigError(f"the run in {self.kept} has {plural(done, 'step')} already, and {told}; ask for more")
        if not same or self.options.deadline is not None:
            self.judging.stale = 0  # who asks for more steps wants them done, also where `train.patience` was over
            return False
        if stored["deadline"]:  # which may have lowered the steps; else they go by the images that are there
            self.total = min(stored["total"], self.total)
            self.deadline = Deadline.again(stored["deadline"], self.options.began)
        if (plain := stored["plain_from"]) is not None and self.total < self.sampler.total_steps:
            self.sampler.plain_from = min(plain, self.sampler.plain_from)
        return True

    def _judged_otherwise(self, val_hash: str | None, before: Config) -> bool:
        """Whether the run is judged by other images than those of `val_hash`, or otherwise than with the settings of
        `before`: then the best so far is forgotten, and that is told."""
        if self.val_hash is None:  # by nothing
            self.val_hash = val_hash
            return False
        other_images = val_hash not in (None, self.val_hash)
        if not other_images and how_judged(before) == how_judged(self.config):
            return False
        what = "by other images" if other_images else "at another size or by other rules"
        self.console.note(f"it is judged {what} from here on, so the best weights are chosen anew")
        self.judging.forget()
        return True
