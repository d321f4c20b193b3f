"""Mistakes in the labels of a data set, and labels proposed: `check`, `apply`, `propose`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .applying import apply
    from .checking import check
    from .proposing import propose

_WHERE = {"check": "checking", "apply": "applying", "propose": "proposing"}

__all__ = ["apply", "check", "propose"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fcos.labels' has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
