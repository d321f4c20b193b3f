"""Which memory layout a training step should have: what `train.channels_last=auto` decides, side by side.

    python benchmarks/layout.py [--rounds 5] [--threads 2] [--device cpu]

Forward and backward of 2 made-up images of a 3:5 shape, random weights, BatchNorm frozen as the preset has it; both
layouts of a model alternate in one process.
"""

from statistics import median

import torch
from common import options, parser, print_heading

from fcos.bench.timing import alternate
from fcos.network import weights
from fcos.presets import resolve
from fcos.training.batch_size import made_up_step
from fcos.training.memory import keep_memory
from fcos.training.setup import make_ready, wants_channels_last

SIZES = {"fcos-r50": 512, "fcos-lite0": 320, "fcos-lite2": 448}  # shorter sides
CLASSES, IMAGES = 20, 2


def way(name, side, last, device):
    """(a step of `name` in one layout, whether "auto" would take it)"""
    sizes = [f"data.train_sizes=[{side}]", f"data.size={side}", f"data.max_size={side * 5 // 3}"]
    config = resolve(name, overrides=[*sizes, "model.backbone_weights=none", f"train.channels_last={last}"])
    torch.manual_seed(0)
    network = weights.build(config, CLASSES)
    make_ready(network, config, device)
    return (
        lambda: made_up_step(network, config, device, IMAGES),
        wants_channels_last(network, "auto", device) is last,
    )


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    chosen = options(made)
    device = torch.device(chosen.device)
    keep_memory()
    print_heading()
    print(f"{'model':<12}{'shorter side':>14}{'channels_last, ms':>20}{'not, ms':>10}{'ratio':>8}  auto")
    for name, side in SIZES.items():
        side = 64 if chosen.short else side
        ways = {last: way(name, side, last, device) for last in (True, False)}
        steps = {last: step for last, (step, _) in ways.items()}
        ms = {last: 1e3 * median(values) for last, values in alternate(steps, chosen.rounds).items()}
        auto = "channels_last" if ways[True][1] else "not"
        print(f"{name:<12}{side:>14}{ms[True]:>20.0f}{ms[False]:>10.0f}{ms[True] / ms[False]:>8.2f}  {auto}")


if __name__ == "__main__":
    main()
