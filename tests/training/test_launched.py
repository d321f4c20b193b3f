"""What each process of a run is told: who started it, its neighbours, its share. No process is started here."""

import pytest
import torch
from processes import as_torchrun
from timm.layers import BatchNormAct2d
from tiny import tiny_config
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fcos.errors import DeviceError
from fcos.network import weights
from fcos.presets import PRESETS, preset
from fcos.training.distributed import launched, synchronize_norms
from fcos.training.validation import in_order, share


@pytest.mark.parametrize("number", [1, 4, 7, 20])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_image_is_judged_by_one_process(number, batch):
    for world in (1, 2, 3):
        shares = [share(number, batch, rank, world) for rank in range(world)]
        assert sorted(i for s in shares for i in s) == list(range(number))
        assert in_order(shares, batch) == list(range(number))


def test_what_torchrun_started_is_used(monkeypatch):
    for name, value in as_torchrun(0, 4, 1).items():
        monkeypatch.setenv(name, value)
    assert launched(1, 1) == (4, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert launched(1, 1) == launched(2, 2) == (2, 2)
    with pytest.raises(DeviceError, match="--devices 8 --nodes 1: torchrun started 2 processes on 2 machines"):
        launched(8, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(DeviceError, match="not the same number"):
        launched(1, 1)


def test_what_slurm_started_is_used(monkeypatch):
    from lightning_fabric.plugins.environments import SLURMEnvironment
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    from fcos.training.setup import make_fabric

    monkeypatch.setattr(rank_zero_only, "rank", 0)  # make_fabric tells it, for the whole process
    assert launched(3, 2) == (3, 2)
    task = {
        "SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
        "SLURM_NODELIST": "gpu[07-08]",
    }  # fmt: skip
    for name, value in task.items():
        monkeypatch.setenv(name, value)
    assert launched(1, 1) == launched(2, 2) == (2, 2)
    strategy = make_fabric(tiny_config(), "cpu", 1, 1).strategy
    environment = strategy.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert (environment.world_size(), environment.global_rank(), environment.local_rank()) == (4, 3, 1)
    assert (strategy.num_nodes, strategy.num_processes) == (2, 2)
    assert environment.main_address == "gpu07"
    with pytest.raises(DeviceError, match="SLURM started 2 processes on 2 machines; set SLURM's --nodes"):
        launched(4, 1)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(DeviceError, match="--ntasks-per-node, not --ntasks"):
        launched(1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PRESETS))
def test_every_weight_gets_a_gradient(name):
    """DDP waits for all of them, unless it is told to look which are used."""
    from fcos.training.setup import make_fabric

    with FakeTensorMode(allow_non_fake_inputs=True):
        network = weights.build(preset(name), 3).train()
        sum(x.sum() for x in network(torch.zeros(1, 3, 256, 256, dtype=torch.uint8))).backward()
        idle = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    strategy = make_fabric(preset(name), "cpu", 2, 1).strategy
    assert bool(idle) == bool(strategy._ddp_kwargs.get("find_unused_parameters")), idle


def test_devices_that_are_not_there(monkeypatch):
    import fcos.training.setup

    monkeypatch.setattr(fcos.training.setup, "pick_device", torch.device)
    with pytest.raises(DeviceError, match="cuda:1 names one device; for 2 processes give cuda"):
        fcos.training.setup.make_fabric(tiny_config(), "cuda:1", 2, 1)
    if torch.cuda.device_count() < 64:
        with pytest.raises(DeviceError, match="64 processes on 1 machines with cuda: "):
            fcos.training.setup.make_fabric(tiny_config(), "cuda", 64, 1)


def test_on_a_gpu_norms_become_torch_s_own():
    """Which keeps names and activations, and leaves frozen norms alone; they run on accelerators only."""
    for norm, kinds in (("batch", {True}), ("frozen", {False})):
        network = weights.build(tiny_config(model={"backbone": "plain", "backbone_norm": norm}), 2).train()
        names = list(network.state_dict())
        synchronize_norms(network.to("meta"))
        found = [m for m in network.backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert {isinstance(m, nn.SyncBatchNorm) for m in found} == kinds
        assert list(network.state_dict()) == names
    body = nn.Sequential(BatchNormAct2d(4, act_layer=nn.SiLU)).train().to("meta")
    assert isinstance(synchronize_norms(body)[0].act, nn.SiLU)


def test_the_processes_of_an_attempt_agree_on_a_name_that_is_new():
    """Whatever dead ones left: words that nobody waits for, and names."""
    from concurrent.futures import ThreadPoolExecutor

    from torch.distributed import HashStore

    from fcos.errors import FcosError
    from fcos.training.distributed import agree

    store, seen = HashStore(), set()
    for world in (3, 3, 4, 2):
        store.set("fcos/word/1", "left behind")
        with ThreadPoolExecutor(world) as pool:
            told = set(pool.map(lambda rank, world=world: agree(store, rank, world, 60.0), range(world)))
        assert len(told) == 1
        assert not told & seen
        seen |= told
    with pytest.raises(FcosError, match=r"process 1 of 2 did not come within 0 seconds"):
        agree(HashStore(), 0, 2, 0.05)
