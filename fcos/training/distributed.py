"""Several processes: who started them, errors that all of them hear of, BatchNorm over all of them."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import DeviceError, FcosError, LostProcess, OtherProcess
from ..network.folding import activation
from ..system.stop import go_on

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

T = TypeVar("T")
RAY = "ray"  # the name of a run among torchrun's variables where Ray's workers are given them (fcos/scale/training.py)


def launched(devices: int, nodes: int) -> tuple[int, int]:
    """(processes on this machine, machines): what torchrun, Ray or srun started, else what was asked for.

    DeviceError when they started something else than --devices and --nodes ask for.
    """
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        starter = "Ray" if os.environ["TORCHELASTIC_RUN_ID"] == RAY else "torchrun"
        fix = "leave out --devices and --nodes"
        world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    elif SLURMEnvironment.detect():
        starter, fix = "SLURM", "set SLURM's --nodes and --ntasks-per-node in the batch script, and leave them out here"
        world, machines = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", "1"))
        if world > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise DeviceError(f"SLURM started {world} tasks; ask for them with --ntasks-per-node, not --ntasks")
        local = world // machines
    else:
        return devices, nodes
    if world % local or not local:
        raise DeviceError(f"{starter} started {world} processes, not the same number on every machine")
    found = local, world // local
    if (devices, nodes) not in ((1, 1), found):
        raise DeviceError(
            f"--devices {devices} --nodes {nodes}: {starter} started {found[0]} processes on {found[1]} machines; {fix}"
        )
    return found


def started_again() -> bool:
    """Whether torchrun (--max-restarts) started this process again, after one of the run was lost."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") not in ("", "0")


def join(device: str) -> None:
    """Form the group of processes where torchrun started several; elsewhere lightning-fabric does it.

    torchrun keeps one store for all its attempts (torch 2.14, with static rendezvous and c10d alike). Processes that it
    starts anew would find the addresses of those that were killed, and fail or wait. So every attempt gets keys of its
    own. `device`: cpu or cuda.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist.is_initialized():
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world == 1:
        return
    from torch._C._distributed_c10d import PrefixStore, TCPStore
    from torch.distributed.constants import default_pg_timeout

    wait = default_pg_timeout
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=wait)
    fresh = PrefixStore(agree(store, rank, world, wait.total_seconds()), store)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=world, timeout=wait)
    if backend == "nccl":
        atexit.register(dist.destroy_process_group)


def agree(store: Store, rank: int, world: int, seconds: float) -> str:
    """A name that the processes of this attempt share and no other attempt has, whatever earlier ones left in `store`.

    torchrun's count of restarts is no such name: on several machines it may differ. Each process shows a word that it
    just made up, and the first answers to words until all have their answer; old words get answers that nobody reads.
    FcosError where one does not come within `seconds`.
    """
    mine = uuid.uuid4().hex
    if rank:
        store.set(f"fcos/word/{rank}", mine)
        name: str = store.get(f"fcos/name/{mine}").decode()
        store.set(f"fcos/heard/{name}/{rank}", "")
        return name
    waiting, answered, until = set(range(1, world)), set(), time.monotonic() + seconds
    while waiting:
        for other in sorted(waiting):
            if store.check([f"fcos/heard/{mine}/{other}"]):
                waiting.remove(other)
            elif store.check([f"fcos/word/{other}"]) and (word := store.get(f"fcos/word/{other}")) not in answered:
                store.set(f"fcos/name/{word.decode()}", mine)
                answered.add(word)
        if time.monotonic() > until:
            raise FcosError(f"process {min(waiting)} of {world} did not come within {seconds:.0f} seconds")
        time.sleep(0.01)
    return mine


def together(work: Callable[[], T], world: int) -> T:
    """`work()`, which all processes call; an FcosError of one is raised on all, so that none waits for ever.

    The first process that failed raises its own error, the others `OtherProcess`.
    """
    result: Any = None
    error: FcosError | None = None
    try:
        result = work()
    except FcosError as caught:
        error = caught
    if world > 1:
        failed = gather(None if error is None else str(error), world)
        first = next((rank for rank, line in enumerate(failed) if line is not None), None)
        if first is not None and first != dist.get_rank():
            raise OtherProcess(f"process {first}: {failed[first]}")
    if error is not None:
        raise error
    value: T = result
    return value


@contextlib.contextmanager
def one_line_for_lost_peers(world: int, rank: int, folder: object) -> Iterator[None]:
    """Inside, the failure of a collective operation, which comes with a page of C++, is one line of ours.

    It is what the other processes of a run see when one was killed or its machine went away.
    """
    try:
        yield
    except RuntimeError as error:
        if world == 1 or not _lost(error):
            raise
        raise LostProcess(
            f"process {rank} of {world} has lost the others: one of them was killed, has crashed or cannot be reached; "
            f"{go_on(folder)}"
        ) from error


def _lost(error: RuntimeError) -> bool:
    words = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe", "processgroup")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def gather(value: T, world: int) -> list[T]:
    """`value` of every process, by rank."""
    if world == 1:
        return [value]
    values: list[Any] = [None] * world
    dist.all_gather_object(values, value)
    return values


def require_same(about: Mapping[str, str], world: int) -> None:
    """FcosError when a process has anything else than the first: machines with other data, settings or files."""
    everyone = gather({**about, "": socket.gethostname()}, world)
    for rank, theirs in enumerate(everyone):
        differ = [key for key in about if theirs[key] != everyone[0][key]]
        if differ:
            line = f"process {rank} on {theirs['']} has other {differ[0]} than process 0 on {everyone[0]['']}"
            raise FcosError(line) if dist.get_rank() == 0 else OtherProcess(line)


def synchronize_norms(network: nn.Module) -> nn.Module:
    """Let every BatchNorm of `network` that trains take its statistics over all processes.

    torch's SyncBatchNorm exists on accelerators only; on the CPU the same is computed here. Names and shapes in
    the state dict stay.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    if not norms:
        return network
    if next(network.parameters()).device.type != "cpu":
        # torch's own converter loses the activation of timm's norms
        from timm.layers.norm_act import convert_sync_batchnorm

        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if any(child is n for n in norms):
                    setattr(parent, name, convert_sync_batchnorm(child))
        return network
    for norm in norms:
        norm.forward = partial(_synchronized_forward, norm)  # type: ignore[method-assign]
    return network


class _Sum(torch.autograd.Function):
    """Sum over processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


def _synchronized_forward(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """BatchNorm in training mode over the images of all processes, which have as many of the same size."""
    if not norm.training:
        return type(norm).forward(norm, x)
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    count = x.numel() // x.shape[1] * dist.get_world_size()
    mean = _Sum.apply(wide.sum(dim=(0, 2, 3))) / count
    centred = wide - mean.view(1, -1, 1, 1)
    variance = _Sum.apply(centred.square().sum(dim=(0, 2, 3))) / count
    if norm.track_running_stats:
        assert norm.num_batches_tracked is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.num_batches_tracked.add_(1)
        weight = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        with torch.no_grad():
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
            norm.running_var.lerp_((variance * (count / max(1, count - 1))).to(norm.running_var.dtype), weight)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    y = centred * scale.view(1, -1, 1, 1)
    if norm.affine:
        y = y + norm.bias.view(1, -1, 1, 1)
    return activation(norm, y.to(x.dtype))
