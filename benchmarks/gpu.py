"""On a GPU: inference, a training step and target assignment against torchvision, and the share of the bf16 peak.

    python benchmarks/gpu.py [--height 800] [--width 1344] [--batch 16] [--rounds 10] [--compile inference]
    python benchmarks/gpu.py --short --device cpu        (shows only that it runs)

Inference: R-50, torchvision's weights converted. Ours: BatchNorm folded, bf16, channels_last, torch.compile with CUDA
graphs, uint8 images copied from pinned memory, decoding and NMS on the device. torchvision: eager fp32 with TF32
allowed, float images already on the device. Training: one step of each, bf16 autocast against fp32 with TF32.
"""

from statistics import median

import torch
from common import options, parser, print_heading
from torchvision.models.detection import fcos_resnet50_fpn
from training import Ours, Theirs, scene, torchvisions

from fcos.assign import assign_batch
from fcos.bench.timing import alternate, matrix_product
from fcos.convert.translate import from_state
from fcos.decode import decode
from fcos.network import weights
from fcos.network.folding import fuse
from fcos.network.info import describe_network
from fcos.points import make_points
from fcos.presets import preset


def row(name: str, seconds: float, base: float, more: str = "") -> None:
    print(f"{name:<46}{1e3 * seconds:>10.2f} ms{base / seconds:>8.2f} x  {more}".rstrip())


def inference(chosen, device) -> None:
    height, width, batch = chosen.height, chosen.width, chosen.batch
    torch.manual_seed(0)
    theirs = fcos_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=min(height, width), max_size=max(height, width)
    ).eval()
    for name, module in theirs.named_modules():
        if name.endswith("bn3"):
            torch.nn.init.constant_(module.weight, 0.3)
    made = from_state(theirs.state_dict())
    network = weights.build(made.config, len(made.classes))
    weights.load_state(network, made.state, "torchvision")
    gflop = batch * sum(part.flops for part in describe_network(network, made.config, (height, width)).parts) / 1e9
    theirs.to(device)
    fused = {"bf16": fuse(network, torch.bfloat16).to(device), "fp32": fuse(network).to(device)}
    graph = fused["bf16"]
    if chosen.compile != "none":  # one shape: images of other shapes are padded to few, so that graphs are reused
        mode = chosen.mode if device.type == "cuda" else "default"
        graph = torch.compile(fused["bf16"], mode=mode, dynamic=False)
    points = make_points((height, width), made.config.model, made.config.assign, device)
    host = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
    host = host.contiguous(memory_format=torch.channels_last)
    host = host.pin_memory() if device.type == "cuda" else host
    ready = [image.float().div(255).to(device) for image in host]
    resident = host.to(device)
    sizes = [(height, width)] * batch

    def ours(model):
        predictions = model(host.to(device, non_blocking=True))
        return decode(predictions, points, sizes, made.config.decode)

    ways = {
        "torchvision, eager fp32 (TF32)": lambda: theirs(ready),
        "ours, eager fp32 (TF32), folded": lambda: ours(fused["fp32"]),
        "ours, eager bf16, folded": lambda: ours(fused["bf16"]),
        "ours, compiled bf16, folded": lambda: ours(graph),
        "  its network alone": lambda: graph(resident),
    }
    if chosen.compile == "none":
        del ways["ours, compiled bf16, folded"]
    peak = matrix_product("bf16", device)
    if peak is not None:
        ways["peak"] = peak[0]
    with torch.inference_mode():
        predictions = {"eager": fused["bf16"](resident)}
        ways["  decoding and NMS alone"] = lambda: decode(predictions["eager"], points, sizes, made.config.decode)
        times = {name: median(values) for name, values in alternate(ways, chosen.rounds, warm=chosen.warm).items()}
    speed = peak[1] / times.pop("peak") if peak is not None else None
    print(f"inference, {batch} images of {height}x{width}, {gflop:.0f} GFLOP, uint8 on the host to boxes")
    base = times["torchvision, eager fp32 (TF32)"]
    for name, seconds in times.items():
        share = ""
        if speed and "decoding" not in name:
            share = f"{gflop / seconds / 1e3:.2f} TFLOP/s, {gflop / seconds / speed:.0%} of the bf16 peak"
        row(name, seconds, base, share)
    if speed:
        print(f"bf16 peak, a matrix product: {speed / 1e3:.1f} TFLOP/s")


def training(chosen, device) -> None:
    size = min(chosen.height, chosen.width)
    images, targets = scene(chosen.batch, size)
    model = torchvisions(size)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    where = device.type
    ways = {
        "torchvision, eager fp32 (TF32)": Theirs(model, images, targets, where),
        "ours, bf16": Ours(state, images, targets, where, bf16=True),
    }
    if chosen.compile == "all":
        ways["ours, bf16, compiled"] = Ours(state, images, targets, where, bf16=True, compiled=True)
    times = {name: median(values) for name, values in alternate(ways, chosen.rounds, warm=chosen.warm).items()}
    print(f"training step, {chosen.batch} images of {size}x{size}")
    for name, seconds in times.items():
        row(name, seconds, times["torchvision, eager fp32 (TF32)"])


def assignment(chosen, device) -> None:
    config = preset("fcos-r50")
    points = make_points((chosen.height, chosen.width), config.model, config.assign, device)
    _, targets = scene(chosen.batch, min(chosen.height, chosen.width), boxes=20)
    targets = [target.to(device) for target in targets]
    times = alternate({"all": lambda: assign_batch(points, targets, config.assign)}, 5 * chosen.rounds, warm=3)
    seconds = median(times["all"])
    print(f"target assignment of {chosen.batch} images, 20 boxes each: {1e3 * seconds:.3f} ms (aim: 1)")


def main() -> None:
    made = parser(__doc__, rounds=10)
    made.add_argument("--height", type=int, default=800)
    made.add_argument("--width", type=int, default=1344)
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--device", default="cuda")
    made.add_argument("--compile", choices=("none", "inference", "all"), default="all")
    made.add_argument("--mode", default="max-autotune", help="of torch.compile; reduce-overhead compiles in less time")
    chosen = options(made)
    chosen.warm = 1 if chosen.short else 3
    if chosen.short:
        chosen.height, chosen.width, chosen.batch, chosen.compile = 64, 96, 1, "none"
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --short --device cpu shows that the script runs")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    device = torch.device(chosen.device)
    print_heading()
    inference(chosen, device)
    training(chosen, device)
    assignment(chosen, device)


if __name__ == "__main__":
    main()
