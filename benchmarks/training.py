"""A training step against torchvision's, where its time goes, and what each of our savings brings.

    python benchmarks/training.py [--size 512] [--batch 2] [--rounds 5] [--device cpu] [--memory] [--short]

R-50 with frozen BatchNorm, stem and first stage fixed, SGD; torchvision's fcos_resnet50_fpn with the same weights,
images and boxes, eager fp32. All ways alternate in one process; bf16 only where the device has it. --memory starts
one process for each way, at batch 8, and prints the most memory that a step took. --only WAY is one way in a process
of its own: `keep_memory`, once asked for, acts on all steps of a process, torchvision's too.
"""

import ctypes
import math
import resource
import subprocess
import sys
import time
from statistics import median

import torch
from common import options, parser, print_heading
from torchvision.models.detection import FCOS as TorchvisionFCOS
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from fcos.assign import assign_batch
from fcos.bench.timing import alternate, synchronize
from fcos.convert.translate import from_state
from fcos.losses import Assignment, fcos_loss
from fcos.network import weights
from fcos.network.folding import fold_frozen
from fcos.points import make_points
from fcos.system.machine import has_bf16
from fcos.training.memory import keep_memory
from fcos.training.setup import wants_channels_last
from fcos.training.step import in_layout_of
from fcos.types import Target

PARTS = ("body", "FPN", "head", "assignment", "loss", "backward", "optimiser")
CLASSES = 91


def torchvisions(size: int) -> TorchvisionFCOS:
    """As torchvision trains it: frozen BatchNorm, three stages that learn."""
    torch.manual_seed(0)
    body = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3,
        returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256),
    )  # fmt: skip
    model = TorchvisionFCOS(body, CLASSES, min_size=size, max_size=size)
    for name, module in model.named_modules():
        if name.endswith("bn3"):
            module.weight.fill_(0.3)  # random weights whose activations stay in range
    return model


def scene(batch: int, size: int, boxes: int = 8) -> tuple[torch.Tensor, list[Target]]:
    g = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (batch, 3, size, size), generator=g, dtype=torch.uint8)
    targets = []
    for _ in range(batch):
        low = torch.rand(boxes, 2, generator=g) * size * 0.7
        high = (low + 16 + torch.rand(boxes, 2, generator=g) * size * 0.5).clamp(max=size)
        labels = torch.randint(0, CLASSES, (boxes,), generator=g)
        targets.append(Target(torch.cat((low, high), 1), labels, torch.zeros(boxes, dtype=torch.bool)))
    return images, targets


class Theirs:
    """torchvision's training step."""

    def __init__(self, model, images, targets, device):
        self.model = model.to(device).train()
        self.images = [image.to(device).float() / 255 for image in images]
        self.targets = [{"boxes": t.boxes.to(device), "labels": t.labels.to(device)} for t in targets]
        self.optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-5, momentum=0.9)

    def __call__(self):
        loss = sum(self.model(self.images, self.targets).values())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


class Ours:
    """The same step here; `marks` collects the seconds of each part when it is a list."""

    def __init__(self, state, images, targets, device, *, bf16=False, fold=True, keep=True, compiled=False):
        made = from_state(state)
        self.config, self.bf16, self.keep, self.device = made.config, bf16, keep, device
        network = weights.build(made.config, len(made.classes))
        weights.load_state(network, made.state, "torchvision")
        network.train().backbone.freeze(2)
        self.network = network.to(device)
        if wants_channels_last(network, "auto", torch.device(device)):
            network.to(memory_format=torch.channels_last)
        if fold:
            fold_frozen(network.backbone.body)
        self.optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 1e-5, momentum=0.9)
        self.images = in_layout_of(network, images.to(device))
        self.targets = [t.to(device) for t in targets]
        self.points = make_points(tuple(images.shape[-2:]), made.config.model, made.config.assign, device)
        self.compiled = torch.compile(network) if compiled else None
        self.marks = None

    def mark(self):
        if self.marks is not None:
            synchronize()
            self.marks.append(time.perf_counter())

    def __call__(self):
        if self.device == "cpu":
            keep_memory() if self.keep else give_back_memory()
        config, network = self.config, self.network
        self.mark()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            if self.compiled is not None:
                pred = self.compiled(self.images)
            else:
                maps = network.backbone(network.normalize(self.images))
                self.mark()
                levels = network.fpn(maps)
                self.mark()
                pred = network.head(levels)
        self.mark()
        index = assign_batch(self.points, self.targets, config.assign)
        self.mark()
        loss = fcos_loss(pred, Assignment.of(self.points, self.targets, index), config.loss, config.model).total()
        self.mark()
        loss.backward()
        self.mark()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.mark()
        return loss.detach()


def give_back_memory() -> None:
    """glibc's own thresholds, the opposite of `keep_memory`."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 128 * 1024)
        libc.mallopt(-1, 128 * 1024)
    except (OSError, AttributeError):
        pass


SAVINGS = {
    "ours, fp32": {},
    "ours, fp32 without folding": {"fold": False},
    "ours, fp32 without keep_memory": {"keep": False},
    "ours, bf16 autocast": {"bf16": True},
}


def make(name, chosen, state=None):
    images, targets = scene(chosen.batch, chosen.size)
    if name == "torchvision":
        return Theirs(torchvisions(chosen.size), images, targets, chosen.device)
    state = state if state is not None else torchvisions(chosen.size).state_dict()
    return Ours(state, images, targets, chosen.device, **SAVINGS[name])


def peak_megabytes(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--size", type=int, default=512)
    made.add_argument("--batch", type=int, default=2)
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    made.add_argument("--memory", action="store_true", help="memory of a step at batch 8 instead of time")
    made.add_argument("--only", choices=["torchvision", *SAVINGS], help="one way, its memory and time")
    chosen = options(made)
    if chosen.short:
        chosen.size, chosen.batch = 64, 1
    if chosen.only:
        step = make(chosen.only, chosen)
        before = peak_megabytes(chosen.device)
        seconds = median(alternate({0: step}, chosen.rounds)[0])
        took = peak_megabytes(chosen.device) - before
        print(f"{chosen.only:<34}{took:>10.0f} MB above the model{1e3 * seconds:>10.0f} ms a step")
        return
    print_heading()
    savings = dict(SAVINGS)
    if not has_bf16(torch.device(chosen.device)) and not chosen.short:
        print("no bf16 on this device: emulated it would take many times as long and show nothing")
        del savings["ours, bf16 autocast"]
    if chosen.memory:
        batch = 1 if chosen.short else 8
        print(f"{batch} images of {chosen.size}x{chosen.size}, one process each")
        for name in ("torchvision", "ours, fp32", "ours, bf16 autocast"):
            if name != "torchvision" and name not in savings:
                continue
            command = [sys.executable, __file__, "--only", name, "--batch", str(batch), "--size", str(chosen.size)]
            command += ["--rounds", "1", "--threads", str(chosen.threads), "--device", chosen.device]
            subprocess.run(command, check=True)
        return

    theirs = torchvisions(chosen.size)
    state = {k: v.clone() for k, v in theirs.state_dict().items()}
    images, targets = scene(chosen.batch, chosen.size)
    ways = {"torchvision": Theirs(theirs, images, targets, chosen.device)}
    ways |= {name: Ours(state, images, targets, chosen.device, **how) for name, how in savings.items()}
    losses = {name: float(way()) for name, way in ways.items()}  # the first step also warms up
    times = {name: median(v) for name, v in alternate(ways, chosen.rounds, warm=0).items()}
    print(f"{chosen.batch} images of {chosen.size}x{chosen.size} on {chosen.device}, {chosen.rounds} rounds")
    print(f"{'step':<34}{'ms':>9}{'ratio':>8}{'first loss':>12}")
    for name, seconds in times.items():
        print(f"{name:<34}{1e3 * seconds:>9.0f}{times['torchvision'] / seconds:>8.2f}{losses[name]:>12.5f}")
    if not math.isclose(losses["torchvision"], losses["ours, fp32"], rel_tol=1e-4):
        print("the losses differ: these are not the same steps")

    for name in ("ours, fp32", "ours, bf16 autocast"):
        if name not in ways:
            continue
        way, rows = ways[name], []
        for _ in range(chosen.rounds):
            way.marks = []
            way()
            rows.append([b - a for a, b in zip(way.marks, way.marks[1:], strict=False)])
        way.marks = None
        parts = [median(column) for column in zip(*rows, strict=True)]
        split = ", ".join(f"{part} {1e3 * s:.0f}" for part, s in zip(PARTS, parts, strict=True))
        print(f"{name}, ms by part: {split}")


if __name__ == "__main__":
    main()
