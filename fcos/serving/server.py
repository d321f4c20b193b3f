"""The loaded models of a server and what its routes share."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import FcosError
from .engine import Engine
from .metrics import Metrics
from .options import Limits, Refused, ServeOptions


@dataclass(frozen=True)
class Server:
    """What the routes share."""

    options: ServeOptions
    engines: dict[str, Engine]
    metrics: Metrics

    @property
    def limits(self) -> Limits:
        return self.options.limits

    def engine(self, name: str | None) -> Engine:
        """A model by name, or the first; Refused (404) where there is none."""
        if name is None:
            return next(iter(self.engines.values()))
        if name not in self.engines:
            raise Refused(404, f"there is no model {name[:80]!r}; models: {', '.join(self.engines)}")
        return self.engines[name]

    def ready(self) -> bool:
        return not any(engine.stopped for engine in self.engines.values())


def start(options: ServeOptions) -> Server:
    """Load the models; FcosError when one cannot be."""
    metrics = Metrics()
    engines: dict[str, Engine] = {}
    for model in options.models:
        engine = Engine(model, options, metrics)
        if engine.name in engines:
            raise FcosError(f"two models are called {engine.name}; name them: --model first={model}")
        engines[engine.name] = engine
    return Server(options, engines, metrics)
