"""A pretended GPU of Apple, for tests on other machines: tensors that say they are on mps, compute on the CPU, and
refuse what is missing there: float64 always, the least of int64 by scatter in torch 2.11."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map


class OnMps(torch.Tensor):
    """A tensor of the CPU that says it is on mps."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class Apple(TorchFunctionMode):
    """Inside, `device="mps"` gives such tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


def _call(func: Any, args: Any, kwargs: Any) -> Any:
    name = getattr(func, "__name__", "")
    there = any(isinstance(x, OnMps) for x in tree_leaves((args, kwargs)))
    with torch._C.DisableTorchFunction():
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return torch.device("mps" if there else "cpu")
        if name == "scatter_reduce_" and there and args[0].dtype == torch.int64:
            raise NotImplementedError("scatter_reduce_ of int64 on mps")
        asked = [x for x in (*args[1:], *kwargs.values()) if isinstance(x, str | torch.device)]
        named = [str(x) for x in asked if str(x).partition(":")[0] in ("cpu", "mps")]
        there = name != "cpu" and ("mps" in named or (there and "cpu" not in named))

        def real(x: Any) -> Any:
            if isinstance(x, OnMps):
                return x.as_subclass(torch.Tensor)
            return "cpu" if isinstance(x, str | torch.device) and str(x) == "mps" else x

        out = func(*tree_map(real, args), **tree_map(real, kwargs))

        def wrapped(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            if x.dtype == torch.float64:
                raise TypeError("mps has no float64")
            return x.as_subclass(OnMps)

        return tree_map(wrapped, out) if there else out
