"""Decoded images kept in memory or on disk, shrunk to the largest size that training asks for."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from ...config import DataConfig
from ...errors import DataError, FcosError, ImageError, ImageWarning
from ...system import tars
from ...system.cgroups import UNKNOWN
from ...system.files import write_whole
from ...system.machine import cache_folder, free_memory
from ...system.progress import track
from ...system.readers import parse_array
from ...system.threads import cpu_cores
from ..dataset import Dataset
from ..images.reading import read_image, resize, resized_shape
from ..records import Record, Size


def kept_shape(size: Size, data: DataConfig) -> Size:
    """The shape an image of `size` is kept at: never enlarged, large enough for every size drawn in training."""
    side = data.largest_side()
    if data.crop > 0:
        side = round(side * max(1.0, *data.crop_scale))
    shape = resized_shape(size, side, round(data.max_size * side / data.size), data.round)
    return shape if shape[0] < size[0] else size


def kept_bytes(dataset: Dataset, data: DataConfig) -> int:
    """The memory that `data.cache=ram` takes."""
    sizes, counts = np.unique(dataset.packed.table.sizes, axis=0, return_counts=True)
    kept = [kept_shape((height, width), data) for height, width in sizes.tolist()]
    return sum(3 * height * width * count for (height, width), count in zip(kept, counts.tolist(), strict=True))


def room() -> int:
    """The bytes that `data.cache=ram` may take here; 0 where that is not known."""
    free = free_memory()
    if free >= UNKNOWN:
        return 0
    if torch.multiprocessing.get_start_method() != "fork":  # processes then share it through a file there
        try:
            free = min(free, shutil.disk_usage("/dev/shm").free)
        except OSError:
            return 0
    return free


class Reader:
    """Record index -> its image, uint8 RGB [H,W,3], through the cache that `data.cache` names.

    Without settings images are read from their files as they are. quiet: no bar while they are decoded into memory.
    Raises ImageError for an image that cannot be read or whose size is not the record's.
    """

    def __init__(self, dataset: Dataset, data: DataConfig | None = None, quiet: bool = False) -> None:
        self.records = dataset.records
        self.data = data
        self.memory: torch.Tensor | None = None
        self.folder: Path | None = None
        self._last: tuple[Path | None, np.ndarray] = (None, np.zeros((0, 0, 3), np.uint8))
        if data is not None and data.cache == "ram":
            self._fill(quiet)
        elif data is not None and data.cache == "disk":
            self.folder = cache_folder() / "pictures"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                self._go_without(f"cannot write into {self.folder}: {error.strerror or error}")

    def read(self, index: int) -> np.ndarray:
        if self.memory is not None and self.offsets[index] >= 0:
            height, width = self.shapes[index]
            start = self.offsets[index]
            return self.memory[start : start + 3 * height * width].view(height, width, 3).numpy()
        if self.folder is not None:
            return self._from_disk(index, self.folder)
        return self._decode(index)

    def _decode(self, index: int) -> np.ndarray:
        record = self.records[index]
        if record.path is None:
            raise ImageError(f"there is no image for {record.file_name}")
        image = self._image(record)
        size = record.whole or record.size
        if image.shape[:2] != size:
            raise ImageError(
                f"{record.path} is {image.shape[1]}x{image.shape[0]}, the annotations are for {size[1]}x{size[0]}"
            )
        if record.window is None:
            return image
        top, left, bottom, right = record.window
        return image[top:bottom, left:right]

    def _image(self, record: Record) -> np.ndarray:
        """The whole image of a record. The last one that was read for a tile is held: its other tiles come next when
        all are gone through in order."""
        assert record.path is not None
        if record.window is None:
            return read_image(record.path)
        path, image = self._last
        if path != record.path:
            image = read_image(record.path)
            self._last = record.path, image
        return image

    def _kept(self, index: int) -> Size:
        assert self.data is not None
        return kept_shape(self.records[index].size, self.data)

    def _shrunk(self, index: int) -> np.ndarray:
        how = self.data.resample if self.data is not None else "auto"
        return resize(self._decode(index), self._kept(index), how)

    def _fill(self, quiet: bool) -> None:
        """Decode all images into one block, which loader processes share."""
        self.shapes = [self._kept(index) for index in range(len(self.records))]
        lengths = np.array([3 * h * w for h, w in self.shapes], dtype=np.int64)
        self.offsets = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        total = int(lengths.sum())
        free = free_memory()
        if total > 0.8 * free:
            raise DataError(
                f"data.cache=ram needs {total / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; use data.cache=disk"
            )
        self.memory = memory = torch.empty(total, dtype=torch.uint8)

        def one(index: int) -> None:
            try:
                pixels = self._shrunk(index)
            except ImageError:
                self.offsets[index] = -1  # found again, and reported, when it is asked for
                return
            start = self.offsets[index]
            memory[start : start + lengths[index]] = torch.from_numpy(np.ascontiguousarray(pixels)).view(-1)

        with ThreadPoolExecutor(cpu_cores()) as pool:
            work = pool.map(one, range(len(self.records)))
            for _ in track(work, len(self.records), "caching", unit="images", quiet=quiet):
                pass
        if torch.multiprocessing.get_start_method() != "fork":
            memory.share_memory_()  # forked processes share it anyway

    def _from_disk(self, index: int, folder: Path) -> np.ndarray:
        record = self.records[index]
        if record.path is None:
            return self._decode(index)
        try:
            inside = tars.split(record.path)
            stat = (record.path if inside is None else inside[0]).stat()
        except OSError:
            return self._decode(index)  # gives the error its line
        assert self.data is not None
        shown = f"{self._kept(index)}|{self.data.resample}|{record.window}"
        key = f"{record.path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{shown}"
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        file = folder / name[:2] / f"{name}.npy"
        try:
            kept = parse_array(file.read_bytes())
        except OSError:
            kept = None
        if kept is not None and kept.dtype == np.uint8 and kept.ndim == 3:
            return kept
        pixels = self._shrunk(index)
        try:
            write_whole(file, lambda path: _save(path, pixels))  # another process never sees half a file
        except FcosError as error:
            self._go_without(str(error))
        return pixels

    def _go_without(self, why: str) -> None:
        """Keep no more images on the disk: it is full, or cannot be written. What is there already is not used either,
        so that the line comes once."""
        self.folder = None
        warnings.warn(f"{why}; going on without data.cache=disk", ImageWarning, 4)


def _save(path: Path, pixels: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, pixels, allow_pickle=False)
