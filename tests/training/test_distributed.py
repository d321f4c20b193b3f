"""One process x 8 images = 2 x 4 = 4 x 2 = 8 parts of 1: real processes over gloo, in float64."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import as_torchrun, at, fcos, finish, free_port, run, start
from tiny import equal_states, make_shapes, one_step, options, tiny_config

from fcos.config import Config
from fcos.data.loading.loader import train_loader
from fcos.data.loading.sampler import Sampler
from fcos.data.open import open_splits
from fcos.errors import ConfigError
from fcos.network import weights
from fcos.training.output.checkpoint import load_checkpoint, save_checkpoint
from fcos.training.replay import replay

STEPS = 4


# what a step may do, each checked for every split of the batch
CASES = {
    "sgd": {
        "model": {"scale": True},
        "train": {"optimizer": "sgd", "lr": 0.01, "clip": 1.0, "ema": 0.9, "freeze_stages": 1, "backbone_lr": 0.5},
    },
    "adamw": {"loss": {"box_weights": "none"}, "train": {"optimizer": "adamw", "lr": 0.001, "linear_probe": 5}},
    "moving-average": {"loss": {"normalizer": "moving-average"}, "train": {"optimizer": "sgd"}},
    "batchnorm": {"model": {"backbone_norm": "batch", "head_norm": "batch"}, "train": {"optimizer": "sgd"}},
}


def case(name: str, **train) -> Config:
    config = tiny_config(**CASES[name])
    return config.override({"train": {"batch": 8, "epochs": 2, "warmup": 1, **train}, "data": {"color": 0.2}})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixteen images, objects on three of them."""
    folder = make_shapes(tmp_path_factory.mktemp("data") / "shapes", {"train": 16, "val": 2})
    file = folder / "instances_train.json"
    content = json.loads(file.read_text())
    shown = {content["images"][i]["id"] for i in (0, 6, 11)}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in shown]
    file.write_text(json.dumps(content))
    return folder


def steps(jobs, data: Path, out: Path):
    """Process target: the first steps of each job (name, config), with what every step saw and did, to a file."""
    from fcos.training.loop import Trainer

    torch.set_default_dtype(torch.float64)
    splits = open_splits(data)
    found = {}
    for name, config in jobs:
        trainer = Trainer(config, splits, options(out / name))
        gradients, seen, norms = [], [], []
        real = trainer.optimizer.step

        def step(trainer=trainer, gradients=gradients, real=real):
            pairs = trainer.network.named_parameters()
            gradients.append({n: p.grad.clone() for n, p in pairs if p.grad is not None})
            real()

        trainer.optimizer.step = step
        loader = train_loader(splits["train"], config, sampler=trainer.sampler)
        for batches in loader:
            seen.append([(list(b.ids), sum(len(t.boxes) for t in b.targets)) for b in batches])
            norms.append(one_step(trainer, batches).grad_norm)
        found[name] = {
            "gradients": gradients,
            "seen": seen,
            "norms": norms,
            "weights": trainer.network.state_dict(),
            "average": trainer.average.network.state_dict() if trainer.average else {},
        }
    rank = os.environ.get("RANK", "0")
    torch.save(found, out / f"rank-{rank}.pt")


def results(jobs, data, out: Path, world: int):
    """What each of `world` processes found."""
    out.mkdir(parents=True)
    port = free_port()
    work = partial(steps, jobs, data, out)
    environments = [as_torchrun(r, world, port) for r in range(world)] if world > 1 else [{}]
    running = [start(work, out / f"log-{r}", env) for r, env in enumerate(environments)]
    for rank, process in enumerate(running):
        assert finish(process) == 0, (out / f"log-{rank}").read_text()
    return [torch.load(out / f"rank-{r}.pt") for r in range(world)]


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """One process, the whole batch at once: what all others must equal."""
    jobs = [(name, case(name)) for name in CASES]
    return results(jobs, data, tmp_path_factory.mktemp("alone") / "out", 1)[0]


def close(ours, theirs, what):
    """Equal to 1e-6 of the largest value; what should be zero is rounding."""
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        error = float((ours[key] - value).abs().max())
        assert error <= 1e-6 * float(value.abs().max()) + 1e-10, f"{what} {key}: {error:.3g}"


def check(found, alone, name, world):
    first = found[0][name]
    assert len(first["gradients"]) == STEPS
    for rank in found[1:]:
        assert equal_states(rank[name]["weights"], first["weights"])  # to the last bit
        assert rank[name]["norms"] == first["norms"]
    for step, (ours, theirs) in enumerate(zip(first["gradients"], alone["gradients"], strict=True)):
        close(ours, theirs, f"{name}, gradient of step {step}")
    close(first["weights"], alone["weights"], f"{name}, weight")
    close(first["average"], alone["average"], f"{name}, average")
    assert first["norms"] == pytest.approx(alone["norms"], rel=1e-6)
    shares = []
    for step in range(STEPS):
        parts = [part for rank in found for part in rank[name]["seen"][step]]
        images = sorted(i for ids, _ in parts for i in ids)
        assert images == sorted(i for ids, _ in alone["seen"][step] for i in ids)
        shares.append({objects > 0 for _, objects in parts})
    assert {True, False} in shares  # a part without objects beside one with some


def test_two_processes_are_one(data, alone, tmp_path):
    jobs = [(name, case(name)) for name in CASES]
    jobs.append(("parts", case("sgd", accumulate=2)))
    found = results(jobs, data, tmp_path / "two", 2)
    for name in CASES:
        check(found, alone[name], name, 2)
    check(found, alone["sgd"], "parts", 2)
    assert max(alone["sgd"]["norms"]) > 1.0  # clipping has acted, on the gradient of the whole batch
    frozen = set(alone["sgd"]["weights"]) - set(alone["sgd"]["gradients"][0])
    assert any(name.startswith("backbone.body.conv1") for name in frozen)


def test_parts_are_one(data, alone, tmp_path):
    jobs = [("eight", case("sgd", accumulate=8)), ("four", case("moving-average", accumulate=4))]
    found = results(jobs, data, tmp_path / "parts", 1)
    check(found, alone["sgd"], "eight", 1)
    check(found, alone["moving-average"], "four", 1)


@pytest.mark.slow
def test_four_processes_are_one(data, alone, tmp_path):
    jobs = [(name, case(name)) for name in CASES]
    found = results(jobs, data, tmp_path / "four", 4)
    for name in CASES:
        check(found, alone[name], name, 4)


def test_every_image_has_one_place(data):
    """Ranks and parts share out the places of a batch, none twice; a batch that cannot be shared is refused."""
    dataset = open_splits(data)["train"]
    config = case("sgd", accumulate=2)
    places = [
        place
        for rank in range(4)
        for part in range(2)
        for place in Sampler(dataset, config.data, config.train, rank, 4).slots(part)
    ]
    assert sorted(places) == list(range(8))
    with pytest.raises(ConfigError, match="make it a multiple of 6"):
        Sampler(dataset, config.data, config.train, 0, 3)


# ------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def begin(data, tmp_path_factory):
    settings = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    settings.write_text(tiny_config(train={"optimizer": "sgd", "lr": 0.01, "ema": 0.9, "epochs": 2}).dump())
    return ["train", "--data", data, "--config", settings, "--init", "none", "--device", "cpu", "--quiet"]


def together(arguments, tmp_path, *prepare, world=2):
    """Exit status and output of each process of a run; every process has a folder of its own to stand in."""
    port = free_port()
    running = []
    for rank in range(world):
        (tmp_path / f"stand-{rank}").mkdir(exist_ok=True)
        work = fcos(arguments, *(prepare if rank == 0 else ()))
        running.append(
            start(work, tmp_path / f"log-{rank}", as_torchrun(rank, world, port), tmp_path / f"stand-{rank}")
        )
    return [finish(p) for p in running], [(tmp_path / f"log-{r}").read_text() for r in range(world)]


@pytest.mark.slow
def test_a_run_of_two_writes_once_stops_and_goes_on(begin, beginning, tmp_path):
    whole = [*begin, "--out", "whole"]
    assert together(whole, tmp_path) == ([0, 0], ["", ""])
    assert not list((tmp_path / "stand-1").iterdir())  # only the first process writes
    folder = tmp_path / "stand-0" / "whole"
    assert [r["step"] for r in rows(folder) if r["loss"]] == [str(i) for i in range(1, 9)]
    assert (folder / "best.safetensors").exists()

    cut = tmp_path / "cut"
    arguments = [*begin, "--out", cut]
    stop = at("fcos.training.optimizer:Average.update", 6, signal.SIGTERM)  # one process is told, all stop
    status, logs = together(arguments, tmp_path, stop)
    assert status == [143, 143]
    assert logs == [f"fcos: stopped at step 6 of 8; go on with: fcos train --resume --out {cut}\n", ""]
    shutil.copytree(cut, tmp_path / "one")
    again = ["train", "--resume", "--out", cut, "--device", "cpu", "--quiet"]
    assert together(again, tmp_path)[0] == [0, 0]
    assert equal_states(load_checkpoint(cut)["average"], load_checkpoint(folder)["average"])
    assert [r["step"] for r in rows(cut)] == [r["step"] for r in rows(folder)]
    again[3] = tmp_path / "one"
    assert run(fcos(again), tmp_path / "log-0") == 0  # one process goes on with what two began
    as_one(tmp_path / "one", folder, beginning)

    (tmp_path / "log-0").unlink()
    (tmp_path / "log-1").unlink()
    status, logs = together(arguments, tmp_path)  # an error of the first process ends all of them, told once
    assert status == [2, 2]
    assert logs == [f"fcos: {cut} holds a run already; give another --out, or go on with it: --resume\n", ""]


def test_two_processes_stop_together_where_a_loss_is_not_finite(begin, tmp_path):
    """Each keeps its own part of the step, the first tells, and one process does either part again."""
    wild = ["train.lr=1e6", "train.warmup=0", "train.epochs=9", "train.schedule=constant"]
    status, logs = together([*begin, "--out", tmp_path / "wild", *wild], tmp_path)
    assert status == [2, 2]
    assert logs[1] == ""
    files = sorted((tmp_path / "wild").glob("nan-*.pt"))
    assert [f.name.replace(".pt", "-process1.pt") for f in files if str(f) in logs[0]] == [files[0].name]
    assert len(files) == 2
    for file in files:
        found = replay(file, "cpu")
        assert found.processes == 2
        assert found.reproduced(0.0)


def judged(config, data: Path, out: Path):
    """Process target: an evaluation by random weights, with what the first process counted, to a file."""
    from fcos.training.loop import Trainer

    trainer = Trainer(config, open_splits(data), options(out / "run"))
    torch.manual_seed(0)
    torch.nn.init.normal_(trainer.network.head.class_logits.weight, std=0.5)
    trainer.step = 1
    trainer.judge(1.0)
    found, metrics = trainer.judging.seen_best or ([], None)
    columns = [(d.boxes, d.scores, d.labels) for d in found]
    torch.save({"found": columns, "AP": metrics and metrics.ap}, out / f"rank-{trainer.context.rank}.pt")


def test_two_processes_judge_as_one(tmp_path):
    """Seven images in blocks of two: the same detections, AP and loss, counted by the first process alone."""
    data = make_shapes(tmp_path / "shapes", {"train": 8, "val": 7})
    config = tiny_config(train={"eval_batch": 2}, decode={"threshold": 0.0, "max_detections": 20})
    for world in (1, 2):
        (tmp_path / str(world)).mkdir()
        port = free_port()
        work = partial(judged, config, data, tmp_path / str(world))
        environments = [as_torchrun(r, world, port) for r in range(world)] if world > 1 else [{}]
        running = [start(work, tmp_path / f"log-{r}", env) for r, env in enumerate(environments)]
        assert [finish(p) for p in running] == [0] * world, (tmp_path / "log-0").read_text()
    one, two = (torch.load(tmp_path / str(w) / "rank-0.pt") for w in (1, 2))
    assert torch.load(tmp_path / "2" / "rank-1.pt")["found"] == []
    assert len(one["found"]) == len(two["found"]) == 7
    assert sum(len(boxes) for boxes, _, _ in one["found"]) > 20
    for ours, theirs in zip(two["found"], one["found"], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert one["AP"] == two["AP"]
    (ours,), (theirs,) = (rows(tmp_path / str(w) / "run") for w in (2, 1))
    assert float(ours["val_loss"]) == pytest.approx(float(theirs["val_loss"]), rel=1e-5)


def test_a_lost_process_is_one_line(begin, tmp_path):
    """One of two is killed in its third step; the other says so, without the page of C++ that comes with it."""
    port, out = free_port(), tmp_path / "run"
    die = at("fcos.training.optimizer:Average.update", 3)
    running = [
        start(
            fcos([*begin, "--out", out], *((die,) if rank else ())),
            tmp_path / f"log-{rank}",
            as_torchrun(rank, 2, port),
        )
        for rank in range(2)
    ]
    assert [finish(p) for p in running] == [2, -signal.SIGKILL]
    lines = (tmp_path / "log-0").read_text().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("fcos: process 0 of 2 has lost the others")
    assert lines[0].endswith(f"go on with: fcos train --resume --out {out}")
    assert load_checkpoint(out)["step"] in (0, 2)


def out_of_time(step: int):
    """The clock of this process says that the time is up after `step`."""
    from fcos.training.clock import Deadline

    def look(self, done, total):
        return done if done >= step else total

    Deadline.look = look


@pytest.mark.slow
def test_a_run_of_minutes_that_two_go_on_with_ends_for_both_by_the_clock_of_the_first(begin, tmp_path):
    out = tmp_path / "run"
    stop = at("fcos.training.optimizer:Average.update", 2, signal.SIGTERM)
    assert run(fcos([*begin, "--out", out], stop), tmp_path / "log") == 143
    stored = {k: v for k, v in load_checkpoint(out).items() if k != "file"}
    save_checkpoint(out, 2, {**stored, "deadline": {"seconds": 600.0, "tail": 1.0, "used": 10.0, "revised": False}})
    again = ["train", "--resume", "--out", out, "--device", "cpu", "--quiet"]
    assert together(again, tmp_path, partial(out_of_time, 4)) == ([0, 0], ["", ""])
    assert [r["step"] for r in rows(out) if r["loss"]] == ["1", "2", "3", "4"]
    assert load_checkpoint(out)["total"] == 4


def little_room():
    """This process has no memory to spare."""
    import fcos.training.batch_size

    fcos.training.batch_size.free_bytes = lambda device: 1


@pytest.mark.slow
def test_two_processes_with_unlike_memory_settle_on_the_batch_of_the_smaller(tmp_path):
    """The first tries one image and the second goes on to two: neither waits for the other's BatchNorm meanwhile."""
    data, settings = make_shapes(tmp_path / "shapes", {"train": 32}), tmp_path / "tiny.yaml"
    config = tiny_config(**CASES["batchnorm"]).override({"train": {"batch": "auto", "iterations": 1}})
    settings.write_text(config.dump())
    arguments = ["train", "--data", data, "--config", settings, "--init", "none", "--device", "cpu", "--quiet"]
    arguments += ["--out", tmp_path / "run", "--holdout", "0"]
    assert together(arguments, tmp_path, little_room) == ([0, 0], ["", ""])
    assert load_checkpoint(tmp_path / "run")["config"]["train"]["batch"] == 2


def begun(config, data: Path, known: Path, out: Path):
    """Process target: what a process starts from whose own answer is `known` in the first, nothing in the others."""
    from fcos.training.loop import Trainer

    mine = str(known) if os.environ["RANK"] == "0" else "none"
    trainer = Trainer(config, open_splits(data), options(out / "run", init=mine))
    torch.save(trainer.average.network.state_dict(), out / f"rank-{trainer.context.rank}.pt")
    (out / f"due-{trainer.context.rank}").write_text(str(trainer.judging.start_due))
    trainer.close()


def test_all_processes_start_from_what_the_first_does(data, tmp_path):
    """Their averages too, which judge images on each; and the start is judged by all or by none."""
    config, known = case("sgd"), tmp_path / "known.safetensors"
    torch.manual_seed(9)
    weights.save(known, weights.build(config, 2).state_dict(), config, open_splits(data)["train"].classes)
    port = free_port()
    work = partial(begun, config, data, known, tmp_path)
    running = [start(work, tmp_path / f"log-{r}", as_torchrun(r, 2, port)) for r in range(2)]
    assert [finish(p) for p in running] == [0, 0], (tmp_path / "log-0").read_text()
    assert equal_states(*(torch.load(tmp_path / f"rank-{r}.pt") for r in range(2)))
    assert (tmp_path / "due-0").read_text() == (tmp_path / "due-1").read_text()


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def program(arguments, environment=None):
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, "-m", *(str(a) for a in arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **quiet, **(environment or {})},
    )  # fmt: skip


def ends(*running):
    for process in running:
        output = process.communicate(timeout=900)[0]
        assert process.returncode == 0, output


@pytest.fixture(scope="module")
def by_one(begin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    assert run(fcos([*begin, "--out", folder]), folder.with_suffix(".log")) == 0
    return folder


@pytest.fixture(scope="module")
def beginning(begin, tmp_path_factory):
    """The weights before the first step: those of a run that does not move."""
    folder = tmp_path_factory.mktemp("still") / "run"
    assert run(fcos([*begin, "--out", folder, "train.lr=1e-12"]), folder.with_suffix(".log")) == 0
    return weights.read(folder / "last.safetensors")[0]


def apart(folder, other, beginning):
    """How far the weights of two runs are apart, as a share of the way that they went, all tensors together.

    Two orders of summation in float32 made 5e-7 here, a divisor that was wrong in one step without objects 5e-4,
    gradients that are summed or not averaged at all, and processes that see the same images, 0.5 and more.
    """
    ours, theirs = weights.read(folder / "last.safetensors")[0], weights.read(other / "last.safetensors")[0]
    assert ours.keys() == theirs.keys() == beginning.keys()

    def distance(one, two):
        return sum(float((one[key].double() - two[key].double()).square().sum()) for key in one) ** 0.5

    return distance(ours, theirs) / distance(beginning, theirs)


def as_one(folder, by_one, beginning):
    """The same run as one process makes, up to the rounding of float32."""
    assert [r["step"] for r in rows(folder)] == [r["step"] for r in rows(by_one)]
    assert apart(folder, by_one, beginning) < 5e-5


@pytest.mark.slow
def test_torchrun_on_one_machine(begin, by_one, beginning, tmp_path):
    torchrun = ["torch.distributed.run", "--nproc-per-node", 2, "--master-port", free_port()]
    ends(program([*torchrun, "-m", "fcos", *begin, "--out", tmp_path / "run"]))
    as_one(tmp_path / "run", by_one, beginning)


@pytest.mark.slow
def test_torchrun_on_two_hosts(begin, by_one, beginning, tmp_path):
    """Two agents on loopback, as on two machines."""
    port = free_port()
    agent = ["torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1, "--master-addr", "127.0.0.1"]
    job = ["--master-port", port, "-m", "fcos", *begin, "--out", tmp_path / "run"]
    ends(*[program([*agent, "--node-rank", host, *job]) for host in range(2)])
    as_one(tmp_path / "run", by_one, beginning)


@pytest.mark.slow
def test_devices_and_nodes(begin, by_one, beginning, tmp_path):
    """Without torchrun: the command starts its own processes, and finds the other machine by three variables."""
    ends(program(["fcos", *begin, "--out", tmp_path / "devices", "--devices", 2]))
    as_one(tmp_path / "devices", by_one, beginning)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = ["fcos", *begin, "--out", tmp_path / "nodes", "--devices", 1, "--nodes", 2]
    ends(*[program(command, {**where, "NODE_RANK": str(host)}) for host in range(2)])
    as_one(tmp_path / "nodes", by_one, beginning)


@pytest.mark.slow
def test_a_lost_worker_is_started_again_and_the_run_goes_on(begin, beginning, tmp_path):
    """One of two processes is killed in the second epoch; nobody does anything, and the end is that of two that
    lived."""
    script = tmp_path / "dies_once.py"
    script.write_text(f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from processes import _fcos, at
first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
last = os.environ["RANK"] == "1"
_fcos(sys.argv[1:], [at("fcos.training.optimizer:Average.update", 7)] if first and last else [])
""")
    torchrun = ["torch.distributed.run", "--nproc-per-node", 2, "--max-restarts", 2, "--master-port", free_port()]
    running = program([*torchrun, script, *begin, "--out", tmp_path / "run"])
    output = running.communicate(timeout=900)[0]
    assert running.returncode == 0, output
    assert "-9" in output or "SIGKILL" in output  # it was lost
    torchrun[-1] = free_port()
    ends(program([*torchrun, "-m", "fcos", *begin, "--out", tmp_path / "whole"]))
    as_one(tmp_path / "run", tmp_path / "whole", beginning)


@pytest.mark.slow
@pytest.mark.parametrize("error", ["summed", "not averaged", "same images"])
def test_what_goes_wrong_between_processes_is_seen(begin, by_one, beginning, tmp_path, error):
    """Three errors made on purpose, each far beyond what `as_one` lets pass."""
    wrong = {
        "summed": "hooked(lambda bucket: dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(first))",
        "not averaged": "hooked(lambda bucket: done(bucket.buffer()))",
        "same images": "Sampler.__init__ = lambda self, data, a, b, rank=0, world=1: old(self, data, a, b, 0, world)",
    }
    script = tmp_path / "wrong.py"
    script.write_text(f"""
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from fcos.cli import main
from fcos.data.loading.sampler import Sampler

old, plain = Sampler.__init__, DistributedDataParallel.__init__

def first(future):
    return future.value()[0]

def done(value):
    future = torch.futures.Future()
    future.set_result(value)
    return future

def hooked(hook):
    def init(self, *arguments, **named):
        plain(self, *arguments, **named)
        self.register_comm_hook(None, lambda _, bucket: hook(bucket))
    DistributedDataParallel.__init__ = init

{wrong[error]}
main(sys.argv[1:])
""")
    torchrun = ["torch.distributed.run", "--nproc-per-node", 2, "--master-port", free_port()]
    ends(program([*torchrun, script, *begin, "--out", tmp_path / "run"]))
    assert apart(tmp_path / "run", by_one, beginning) > 0.1


KILLS = 10


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["static", "c10d"])
def test_workers_lost_ten_times_in_a_row_find_each_other_again(tmp_path, backend):
    """torchrun's store lives on, and holds what the dead wrote; in the end both add up once more."""
    script = tmp_path / "dies.py"
    script.write_text(f"""
import os, signal
import torch
import torch.distributed as dist
from fcos.training.distributed import join

join("cpu")
attempt, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])
value = torch.tensor([1.0 + rank])
dist.all_reduce(value)
if attempt < {KILLS} and rank == attempt % 2:
    os.kill(os.getpid(), signal.SIGKILL)
dist.barrier()
os.write(1, f"attempt {{attempt}} sum {{value.item()}}\\n".encode())  # at once: the other writes too
""")
    where = {
        "static": ["--master-port", free_port()],
        "c10d": ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"],
    }
    torchrun = ["torch.distributed.run", "--nproc-per-node", 2, "--max-restarts", KILLS]
    running = program([*torchrun, *where[backend], script])
    output = running.communicate(timeout=900)[0]
    assert running.returncode == 0, output
    assert output.count(f"attempt {KILLS} sum 3.0") == 2
