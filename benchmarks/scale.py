"""The numbers of docs/scale.md: a data set of COCO's size, the processes that share it, checkpoints beside training.

python benchmarks/scale.py index instances_val2017.json.gz [--images]   # CPU seconds and memory, one thread
python benchmarks/scale.py share instances_val2017.json.gz              # memory of 8 loader processes
python benchmarks/scale.py save                                         # what save() takes of the loop, R-50
python benchmarks/scale.py store my_data                                # files, shards and a store, images a second

Run it with OMP_NUM_THREADS=1. CPU seconds and shares of one process can be read on a machine that others use.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

IMAGES = 118_287  # of train2017


def cpu() -> float:
    """Seconds of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory(name: str, file: str = "status", process: int | str = "self") -> float:
    """MB of a line of /proc/PROCESS/FILE."""
    for line in Path(f"/proc/{process}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(name)


def make(source: Path, folder: Path, images: bool) -> Path:
    """val2017's boxes copied over until they are as many images as train2017; with files of their sizes if asked."""
    from PIL import Image

    from fcos.system.readers import read_json

    target = folder / "instances_train.json"
    val = read_json(source)
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in val["annotations"]:
        rows.setdefault(row["image_id"], []).append(row)
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    while len(listed) < IMAGES:
        for image in val["images"][: IMAGES - len(listed)]:
            number = len(listed) + 1
            listed.append({**image, "id": number, "file_name": f"{number:012d}.jpg"})
            for row in rows.get(image["id"], ()):
                annotations.append({**row, "id": len(annotations) + 1, "image_id": number})
    target.write_text(json.dumps({**val, "images": listed, "annotations": annotations}))
    if images:
        made: dict[tuple[int, int], tuple[Path, int]] = {}
        for image in listed:
            size = image["width"], image["height"]
            path = folder / str(image["file_name"])
            first, count = made.get(size, (path, 0))
            if count % 30_000 == 0:  # a file system has a limit of names for one file
                Image.new("L", size, 90).save(path, quality=30)
                first = path
            else:
                os.link(first, path)
            made[size] = first, count + 1
    return target


def opened(file: Path) -> dict[str, float]:
    """What opening takes: CPU seconds, and MB of memory before, at most, and after."""
    from fcos.data.open import open_dataset

    before, began = memory("VmRSS"), cpu()
    data = open_dataset(file)
    took = cpu() - began
    gc.collect()
    return {
        "images": len(data), "boxes": len(data.packed.table.boxes), "cpu_seconds": round(took, 2),
        "before_mb": round(before), "peak_mb": round(memory("VmHWM")), "after_mb": round(memory("VmRSS")),
        "table_mb": round(data.packed.size() / 2**20),
    }  # fmt: skip


def look(records: Any, queue: Any, done: Any) -> None:
    """One loader process: goes through all records, then tells what memory is its own."""
    total = 0
    for record in records:
        total += len(record.boxes)
    queue.put((os.getpid(), total, memory("Pss", "smaps_rollup"), memory("Private_Dirty", "smaps_rollup")))
    done.wait()


def shared(file: Path, method: str, count: int = 8) -> dict[str, Any]:
    """MB that `count` processes take which each go through all records, and the same without records."""
    from fcos.data.open import open_dataset

    data = open_dataset(file)
    gc.collect()
    result: dict[str, Any] = {"start": method, "processes": count, "table_mb": round(data.packed.size() / 2**20)}
    context = multiprocessing.get_context(method)
    for name, records in (("with", data.packed), ("without", data.packed.take([0]))):
        queue, done = context.Queue(), context.Event()
        workers = [context.Process(target=look, args=(records, queue, done)) for _ in range(count)]
        for worker in workers:
            worker.start()
        rows = [queue.get(timeout=600) for _ in workers]
        result[name] = {"pss_sum": round(sum(r[2] for r in rows)), "own_sum": round(sum(r[3] for r in rows))}
        done.set()
        for worker in workers:
            worker.join()
    return result


def save_cost(rounds: int = 5) -> dict[str, float]:
    """Seconds of the loop that one save takes at R-50: the copy, and what the thread keeps from it meanwhile."""
    import torch

    from fcos.network import weights
    from fcos.presets import resolve
    from fcos.training.output.checkpoint import save_checkpoint
    from fcos.training.output.saving import Saver, copied

    config = resolve("fcos-r50", ["model.backbone_weights=none"])
    network = weights.build(config, 80)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    model = network.state_dict()
    state = {"model": model, "average": {k: v.clone() for k, v in model.items()}, "optimizer": optimizer.state_dict()}
    size = sum(v.numel() * v.element_size() for v in model.values()) * 3
    work, saver = torch.rand(256, 256), Saver()

    def steps(until: Any) -> tuple[int, float]:
        """(turns of something like a step, CPU seconds of this thread for them) until `until()`."""
        count, began = 0, time.thread_time()
        while not until():
            (work @ work).sum().item()
            count += 1
        return count, time.thread_time() - began

    copies, thread, turns = [], [], []
    with tempfile.TemporaryDirectory() as folder:

        def write(step: int, kept: dict[str, Any]) -> None:
            began = time.thread_time()
            save_checkpoint(Path(folder), step, kept)
            weights.save(Path(folder) / "last.safetensors", kept["average"], config, weights.Classes(tuple("ab" * 40)))
            thread.append(time.thread_time() - began)

        for step in range(rounds):
            began = time.thread_time()
            saver.start(partial(write, step, copied(state)))
            copies.append(time.thread_time() - began)
            turns.append(steps(lambda: saver._pending is None or saver._pending.done()))
        saver.wait()
    alone = time.monotonic() + 2
    count, took = steps(lambda: time.monotonic() > alone)
    return {
        "state_mb": round(size / 2**20),
        "copy_cpu_seconds": round(statistics.median(copies), 3),
        "thread_cpu_seconds": round(statistics.median(thread), 3),
        "cpu_of_a_turn_beside": round(statistics.median(t / max(n, 1) for n, t in turns) * 1e3, 3),
        "cpu_of_a_turn_alone": round(took / count * 1e3, 3),
    }


def store(source: Path, rounds: int = 5) -> dict[str, float]:
    """Images a second of the training loader: from files, from shards, and from both in moto's S3 server with the
    cache, one pass each in turn; medians of the shares of the files' rate, by the clock and by CPU seconds. Opening
    from the store counts apart."""
    import s3fs
    from moto.server import ThreadedMotoServer

    from fcos.data.loading.loader import train_loader
    from fcos.data.open import open_splits
    from fcos.data.write import convert
    from fcos.presets import resolve

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(names, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FCOS_CACHE"] = str(Path(folder) / "cache")
        splits = open_splits(source)
        split = "train" if "train" in splits else next(iter(splits))
        small = {split: splits[split].subset(range(min(200, len(splits[split]))))}
        for kind in ("coco", "webdataset"):
            convert(small, Path(folder) / kind, kind)
        files = s3fs.S3FileSystem()
        files.mkdir("box")
        for kind in ("coco", "webdataset"):
            files.put(str(Path(folder) / kind), f"box/{kind}", recursive=True)
        places = {"files": f"{folder}/coco", "shards": f"{folder}/webdataset"}
        places |= {"files in the store": "s3://box/coco", "shards in the store": "s3://box/webdataset"}
        result: dict[str, float] = {}
        sets = {}
        for name, place in places.items():
            began = time.monotonic()
            sets[name] = next(iter(open_splits(place).values()))
            result[f"open {name}, s"] = round(time.monotonic() - began, 2)
        settings = ["data.workers=0", "train.batch=8", "train.epochs=1", "data.size=320", "data.max_size=533"]
        config = resolve("fcos-lite0", settings)
        rates: dict[str, list[float]] = {name: [] for name in sets}
        by_cpu: dict[str, list[float]] = {name: [] for name in sets}
        for _ in range(rounds):
            for name, data in sets.items():
                began, used, count = time.monotonic(), cpu(), 0
                for batches in train_loader(data, config):
                    count += sum(len(batch.ids) for batch in batches)
                rates[name].append(count / (time.monotonic() - began))
                by_cpu[name].append(count / (cpu() - used))
        for name, values in rates.items():
            shares = [v / f for v, f in zip(values, rates["files"], strict=True)]
            result[f"{name}, share"] = round(statistics.median(shares), 3)
            shares = [v / f for v, f in zip(by_cpu[name], by_cpu["files"], strict=True)]
            result[f"{name}, share by CPU"] = round(statistics.median(shares), 3)
        result["files, images/s"] = round(statistics.median(rates["files"]), 1)
        result["files, images/CPU second"] = round(statistics.median(by_cpu["files"]), 1)
    server.stop()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("index", "share", "save", "store", "opened", "shared"))
    parser.add_argument("words", nargs="*")
    parser.add_argument("--images", action="store_true")
    given = parser.parse_args()
    if given.what in ("save", "store"):
        print(json.dumps(save_cost() if given.what == "save" else store(Path(given.words[0]))))
        return
    if given.what in ("opened", "shared"):
        file = Path(given.words[0])
        print(json.dumps(opened(file) if given.what == "opened" else shared(file, given.words[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = make(Path(given.words[0]), Path(folder), given.images)
        runs = (
            [["opened", str(file)]] if given.what == "index" else [["shared", str(file), m] for m in ("fork", "spawn")]
        )
        for words in runs:
            subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
