import multiprocessing
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_shapes

from fcos.config import Config
from fcos.data.dataset import Dataset
from fcos.data.loading.loader import Sampler, count_workers, eval_batches, train_loader
from fcos.data.records import Record
from fcos.errors import ConfigError, DataError, ImageError
from fcos.types import Classes

BUSY = {"flip": 0.5, "vertical_flip": 0.3, "crop": 0.5, "color": 0.7, "mosaic": 0.3, "mixup": 0.3, "paste": 0.4}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    records = []
    for index in range(11):
        width, height = (60, 40) if index % 3 else (40, 60)
        path = folder / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        count = index % 4
        corner = rng.uniform(0, 25, (count, 2))
        boxes = np.hstack((corner, corner + rng.uniform(2, 15, (count, 2)))).astype(np.float32)
        labels = np.zeros(count, dtype=np.int64)
        ignore = rng.random(count) < 0.2
        if index == 7:
            labels[0], ignore[0] = 1, False
        records.append(Record(index, path, (height, width), boxes, labels, ignore, np.ones(count, np.float32)))
    return Dataset(tuple(records), Classes(("common", "rare")), "coco", "train", folder)


def config(data=None, **train):
    base = {"size": 32, "max_size": 64, "train_sizes": (32, 40, 48), "workers": 0, **(data or {})}
    return Config().override({"data": base, "train": {"batch": 8, "epochs": 3, **train}})


def flat(loader):
    """Per image of each step: pixels, boxes, labels, ignore."""
    steps = []
    for parts in loader:
        rows = []
        for batch in parts:
            for image, size, target, id in zip(batch.images, batch.sizes, batch.targets, batch.ids, strict=True):
                rows.append((image.numpy().copy(), size, target.boxes.numpy(), target.labels.tolist(), id))
        steps.append(rows)
    return steps


def same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a[1] == b[1]
        assert a[3:] == b[3:]
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[2], b[2])


def test_resuming_is_bit_equal(dataset):
    settings = config(BUSY)
    whole = flat(train_loader(dataset, settings))
    assert len(whole) == 6  # ceil(11 / 8) * 3
    rest = flat(train_loader(dataset, settings, start_step=3))
    for one, two in zip(whole[3:], rest, strict=True):
        same(one, two)
    other = flat(train_loader(dataset, settings.override("train.seed=1")))
    assert any(not np.array_equal(a[0], b[0]) for a, b in zip(whole[0], other[0], strict=True))


def test_workers_change_nothing_and_leave_the_global_random_state_alone(dataset):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    alone = flat(train_loader(dataset, config(BUSY, epochs=1)))
    helped = flat(train_loader(dataset, config(BUSY | {"workers": 2}, epochs=1)))
    assert torch.equal(state, torch.get_rng_state())
    for one, two in zip(alone, helped, strict=True):
        same(one, two)


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 8), (4, 2), (8, 1), (2, 2)])
def test_every_split_of_a_step_holds_the_same_images(dataset, world, accumulate):
    whole = flat(train_loader(dataset, config(BUSY)))
    settings = config(BUSY, accumulate=accumulate)
    samplers = [Sampler(dataset, settings.data, settings.train, rank, world) for rank in range(world)]
    ranks = [list(train_loader(dataset, settings, sampler=sampler)) for sampler in samplers]
    for step, expected in enumerate(whole):
        # Part a of rank r is slice number a * world + r of the step.
        parts = [[ranks[r][step][a]] for a in range(accumulate) for r in range(world)]
        same(expected, [row for part in parts for row in flat([part])[0]])


def test_batch_that_cannot_be_split(dataset):
    with pytest.raises(ConfigError, match=r"train\.batch=8 cannot be split over 3 processes"):
        Sampler(dataset, config().data, config().train, 0, 3)


@pytest.mark.parametrize("batch", [1, 3, 8, 30])
def test_an_epoch_shows_every_image(dataset, batch):
    settings = config(batch=batch)
    sampler = Sampler(dataset, settings.data, settings.train)
    assert sampler.steps_per_epoch == -(-11 // batch)
    for epoch in range(3):
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        plans = [sampler.plan(s) for s in steps]
        seen = [r for p in plans for r in p.records]
        assert set(seen) == set(range(11))
        assert max(seen.count(r) for r in range(11)) <= -(-len(seen) // 11)
        assert all(len(p.records) == batch and p.epoch == epoch for p in plans)
        positions = [q for p in plans for q in p.positions]
        assert positions == list(range(len(seen)))


def test_plans_do_not_depend_on_what_was_asked_before(dataset):
    settings = config(batch=3)
    one, two = (Sampler(dataset, settings.data, settings.train) for _ in range(2))
    forward = [one.plan(s) for s in range(12)]
    backward = [two.plan(s) for s in reversed(range(12))]
    assert forward == backward[::-1]
    assert forward[0].records != forward[4].records


def test_lying_and_standing_images_rarely_meet(dataset):
    settings = config(batch=2, epochs=20)
    sampler = Sampler(dataset, settings.data, settings.train)
    for epoch in range(20):
        plans = [sampler.plan(epoch * sampler.steps_per_epoch + s) for s in range(sampler.steps_per_epoch)]
        mixed = sum(len({h > w for h, w in p.frames}) == 2 for p in plans)
        assert mixed <= 1


def test_frames_and_canvas_worked_by_hand(dataset):
    settings = config({"train_sizes": ()}, batch=4)
    sampler = Sampler(dataset, settings.data, settings.train)
    for step in range(6):
        plan = sampler.plan(step)
        assert set(plan.frames) <= {(32, 48), (48, 32)}
        assert plan.canvas == tuple(32 if max(f[k] for f in plan.frames) == 32 else 64 for k in (0, 1))


def test_sizes_are_drawn_once_a_step_and_the_limit_follows(dataset):
    settings = config({"max_size": 40}, batch=4)
    sampler = Sampler(dataset, settings.data, settings.train)
    limits = {max(sampler.plan(step).frames[0]) for step in range(40)}
    assert limits == {40, 50, 60}


def test_rare_classes_come_oftener(dataset):
    settings = config(batch=4, balance=0.9, epochs=200)
    sampler = Sampler(dataset, settings.data, settings.train)
    shown = np.zeros(11)
    for epoch in range(50):
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        seen = [r for s in steps for r in sampler.plan(s).records]
        assert set(seen) == set(range(11))
        shown += np.bincount(seen, minlength=11)
    # Class 1 is on one of 11 images; the images without boxes are not repeated.
    expected = np.sqrt(0.9 / (1 / 11))
    plain = [i for i, r in enumerate(dataset.records) if len(r.boxes) == 0]
    assert shown[7] / shown[plain].mean() == pytest.approx(expected, rel=0.25)
    crowd = [replace(r, ignore=r.ignore | (r.labels == 1)) for r in dataset.records]
    repeats = Sampler(replace(dataset, records=tuple(crowd)), settings.data, settings.train).repeats
    assert len(np.unique(repeats)) == 2  # of images with the common class and without any: a crowd is not shown


def test_pasted_boxes_add_to_those_of_the_image_but_for_the_last_epochs(dataset):
    quiet = {"flip": 0.0, "crop": 0.0, "color": 0.0, "plain_epochs": 1}
    counts = []
    for paste in (0.0, 1.0):
        parts = train_loader(dataset, config(quiet | {"paste": paste}, epochs=3))
        counts.append([sum(len(t.boxes) for t in batch.targets) for (batch,) in parts])
    plain, pasted = np.array(counts)
    assert (pasted >= plain).all()
    assert (pasted[:4] > plain[:4]).any()
    assert (pasted[4:] == plain[4:]).all()


def test_mosaic_stops_for_the_last_epochs(dataset):
    settings = config({"plain_epochs": 1, "mosaic": 1.0}, epochs=3)
    sampler = Sampler(dataset, settings.data, settings.train)
    assert [sampler.plan(s).plain for s in range(6)] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_mosaic_stops_earlier_in_a_run_that_was_shortened(dataset, workers):
    """Ten epochs of two steps; after the fifth step the run shall have eleven, so epochs 4 and 5 are plain. What
    workers had made ready by then stays: five steps more."""
    settings = config(BUSY | {"plain_epochs": 2, "mosaic": 1.0, "workers": workers}, epochs=10)
    sampler = Sampler(dataset, settings.data, settings.train)
    assert [sampler.plain_from, sampler.earlier_plain(20), sampler.earlier_plain(11)] == [16, 16, 8]
    assert sampler.earlier_plain(30) == 16  # never later again
    batches = iter(train_loader(dataset, settings, sampler=sampler))
    seen = [next(batches) for _ in range(5)]
    sampler.plain_from = sampler.earlier_plain(11)
    assert sampler.plain_from == (8 if workers == 0 else 10)
    seen += list(batches)
    again = Sampler(dataset, settings.data, settings.train)
    again.plain_from = sampler.plain_from  # as a run that is resumed has it
    ours, resumed, whole = (
        flat(steps)[:11]
        for steps in (seen, train_loader(dataset, settings, sampler=again), train_loader(dataset, settings))
    )
    for step in range(11):
        same(ours[step], resumed[step])
        assert [row[4] for row in ours[step]] == [row[4] for row in whole[step]]
    changed = [
        any((a[0] != b[0]).any() for a, b in zip(*steps, strict=True)) for steps in zip(ours, whole, strict=True)
    ]
    assert changed == [step >= sampler.plain_from for step in range(11)]


def test_images_without_augmentation_are_where_they_should_be(dataset):
    settings = config({"flip": 0.0, "train_sizes": (40,), "size": 40})
    plain = next(iter(train_loader(dataset, settings)))[0]
    assert plain.images.dtype == torch.uint8
    assert plain.images.is_contiguous(memory_format=torch.channels_last)
    for image, size, target, id in zip(plain.images, plain.sizes, plain.targets, plain.ids, strict=True):
        record = dataset.records[id]
        scale = 40 / min(record.size)
        assert size == tuple(round(s * scale) for s in record.size)
        np.testing.assert_allclose(target.boxes, record.boxes * scale, rtol=1e-5)
        assert target.ignore.tolist() == record.ignore.tolist()
        pixels = image.permute(1, 2, 0).numpy()
        if scale == 1:
            np.testing.assert_array_equal(pixels[: size[0], : size[1]], np.asarray(Image.open(record.path)))
        assert (pixels[size[0] :] == (124, 116, 104)).all()
        assert (pixels[:, size[1] :] == (124, 116, 104)).all()


def test_augmented_boxes_stay_inside(dataset):
    for parts in train_loader(dataset, config(BUSY | {"mosaic": 0.6, "mixup": 0.6}, epochs=6)):
        for size, target in zip(parts[0].sizes, parts[0].targets, strict=True):
            assert target.boxes.dtype == torch.float32
            assert len(target.boxes) == len(target.labels) == len(target.ignore)
            if len(target):
                assert target.boxes.min() >= 0
                assert (target.boxes[:, 2] <= size[1]).all()
                assert (target.boxes[:, 3] <= size[0]).all()
                assert (target.boxes[:, 2:] - target.boxes[:, :2]).min() >= 1e-3


def broken(dataset, indices, folder):
    records = list(dataset.records)
    for index in indices:
        path = folder / f"broken{index}.jpg"
        path.write_bytes(b"no image")
        records[index] = Record(index, path, *[getattr(records[index], k) for k in FIELDS])
    return Dataset(tuple(records), dataset.classes, "coco", "train", folder)


FIELDS = ("size", "boxes", "labels", "ignore", "areas")


def test_unreadable_images_are_replaced_and_named_once(dataset, tmp_path):
    damaged = broken(dataset, [4], tmp_path)
    loader = train_loader(damaged, config())
    with pytest.warns(UserWarning, match="broken4") as caught:
        steps = list(loader)
    assert len(caught) == 1
    assert list(loader.skipped) == [str(tmp_path / "broken4.jpg")]
    assert all(len(parts[0]) == 8 for parts in steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match="not an image") as error:
            list(train_loader(broken(dataset, range(11), tmp_path), config({"workers": 1})))
    assert "\n" not in str(error.value)


def test_files_that_went_bad_together_are_replaced_from_the_whole_set(dataset, tmp_path):
    """Half of 80 images, side by side: their places go to many others, the same after a resume and with workers."""
    records = []
    for index in range(80):
        path = tmp_path / f"{index:02d}.png"
        Image.fromarray(np.full((40, 60, 3), index, np.uint8)).save(path)
        records.append(replace(dataset.records[1], id=index, path=path))
    damaged = broken(replace(dataset, records=tuple(records)), range(40), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = flat(train_loader(damaged, config(BUSY, epochs=1)))
        rest = flat(train_loader(damaged, config(BUSY | {"workers": 1}, epochs=1), start_step=4))
        plain = flat(train_loader(damaged, config({"flip": 0.0}, epochs=1)))
    for one, two in zip(whole[4:], rest, strict=True):
        same(one, two)
    learned = Counter(int(image[0, 0, 0]) for step in plain for image, *_ in step)
    assert min(learned) >= 40
    assert max(learned.values()) < 8


def test_tiles_of_a_damaged_image_are_one_image(dataset, tmp_path):
    """24 tiles of it in a row, then one that can be read; and twenty images that cannot be read are too many."""
    damaged = broken(dataset, [4], tmp_path)
    tile = replace(damaged.records[4], window=(0, 0, 20, 20), whole=damaged.records[4].size)
    tiles = replace(damaged, records=(*[tile] * 24, damaged.records[5]))
    with pytest.warns(UserWarning, match="broken4") as caught:
        ids = {id for parts in train_loader(tiles, config()) for id in parts[0].ids}
    assert len(caught) == 1
    assert ids == set(range(25))
    lost = [replace(damaged.records[4], path=tmp_path / f"none{k}.jpg") for k in range(20)]
    steps = train_loader(replace(damaged, records=(*lost, damaged.records[5])), config())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError):
            list(steps)


def test_evaluation_sees_every_image_once_and_unchanged(dataset, tmp_path):
    for batch in (1, 4):
        seen = {}
        for part in eval_batches(dataset, config(), batch):
            assert part.images.shape[-1] % 32 == part.images.shape[-2] % 32 == 0
            for size, target, id in zip(part.sizes, part.targets, part.ids, strict=True):
                seen[id] = (size, len(target))
        assert sorted(seen) == list(range(11))
        assert all(seen[i] == ((48, 32) if i % 3 == 0 else (32, 48), i % 4) for i in range(11))
    loader = eval_batches(broken(dataset, [2, 3], tmp_path), config())
    with pytest.warns(UserWarning, match="broken"):
        ids = [id for part in loader for id in part.ids]
    assert ids == [0, 1, *range(4, 11)]
    assert len(loader.skipped) == 2


def test_no_images(dataset):
    with pytest.raises(DataError, match="no images to train on"):
        train_loader(dataset.subset([]), config())
    bare = Dataset((Record(1, None, *[getattr(dataset.records[0], k) for k in FIELDS]),), dataset.classes, "coco",
                   "val", dataset.root)  # fmt: skip
    with pytest.raises(DataError, match="annotations but no images"):
        train_loader(bare, config())
    assert list(eval_batches(dataset.subset([]), config())) == []


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_caches_give_the_same_images(dataset, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path))
    plain = flat(train_loader(dataset, config(BUSY, epochs=1)))
    for _ in range(2):  # the second time from the cache
        kept = flat(train_loader(dataset, config(BUSY | {"cache": cache}, epochs=1)))
        for one, two in zip(plain, kept, strict=True):
            same(one, two)  # nothing is shrunk: the images are smaller than crop_scale asks for
    small = config({"cache": cache, "train_sizes": (32,), "flip": 0.0}, epochs=1)
    reference = config({"train_sizes": (32,), "flip": 0.0}, epochs=1)
    for one, two in zip(flat(train_loader(dataset, small)), flat(train_loader(dataset, reference)), strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a[0], b[0])  # kept at the very size
            np.testing.assert_allclose(a[2], b[2], atol=1e-4)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_caches_and_several_sizes(tmp_path, cache, monkeypatch):
    """Images are kept at the largest size: exact there, close below; the boxes are the same at every size."""
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    smooth = np.linspace(0, 255, 120 * 180, dtype=np.float32).reshape(120, 180, 1).repeat(3, 2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "0.png")
    box = np.array([[30, 24, 90, 96]], np.float32)
    record = Record(
        0, tmp_path / "0.png", (120, 180), box, np.zeros(1, np.int64), np.zeros(1, bool), np.ones(1, np.float32)
    )
    one = Dataset((record,), Classes(("thing",)), "coco", "train", tmp_path)
    data = {"train_sizes": (32, 48, 64), "size": 64, "max_size": 100, "flip": 0.0}
    plain = flat(train_loader(one, config(data, batch=1, epochs=12)))
    kept = flat(train_loader(one, config(data | {"cache": cache}, batch=1, epochs=12)))
    assert {rows[0][1][0] for rows in plain} == {32, 48, 64}
    for (a,), (b,) in zip(plain, kept, strict=True):
        assert a[1] == b[1]
        np.testing.assert_allclose(a[2], b[2], atol=1e-3)
        np.testing.assert_allclose(b[2], box * a[1][0] / 120, rtol=0.02)
        if a[1][0] == 64:
            np.testing.assert_array_equal(a[0], b[0])
        else:
            height, width = a[1]
            assert np.abs(a[0][:, :height, :width].astype(int) - b[0][:, :height, :width]).mean() < 2


def test_smaller_images_at_first(dataset):
    data = {"train_sizes": (48, 64), "size": 64, "max_size": 100, "first_sizes": (32, 40), "first_share": 0.25}
    settings = config(data, iterations=40)
    assert settings.data.largest_side() == 64
    sampler = Sampler(dataset, settings.data, settings.train)
    shorter = [{min(frame) for frame in sampler.plan(step).frames} for step in range(40)]
    assert set().union(*shorter[:10]) <= {32, 40}
    assert len(set().union(*shorter[:10])) == 2
    assert set().union(*shorter[10:]) == {48, 64}
    none = settings.override("data.first_share=0")
    assert (
        Sampler(dataset, none.data, none.train).plan(0).frames
        == Sampler(dataset, config(data | {"first_sizes": ()}).data, settings.train).plan(0).frames
    )


def test_count_of_workers():
    assert count_workers(3, 1) == 3
    assert count_workers(0, 1) == 0
    assert 0 <= count_workers(-1, 1) <= 4
    with pytest.warns(UserWarning, match="/dev/shm is too small"):
        assert count_workers(2, 1 << 50) == 0


def test_a_daemonic_process_loads_by_itself(monkeypatch):
    """Celery's workers and those of a multiprocessing.Pool may have no children: AssertionError."""
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    with pytest.warns(UserWarning, match="daemonic"):
        assert count_workers(2, 1) == 0
    assert count_workers(0, 1) == 0


@pytest.mark.slow
def test_a_script_that_its_own_loader_runs_again_is_told_why(tmp_path):
    """Where processes are not forked, as on Windows and macOS."""
    make_shapes(tmp_path / "data", {"train": 4})
    (tmp_path / "script.py").write_text(
        "import multiprocessing, fcos\n"
        "multiprocessing.set_start_method('spawn', force=True)\n"
        "settings = {'data.size': 64, 'data.train_sizes': [64], 'train.iterations': 2, 'train.batch': 2, "
        "'data.workers': 1, 'train.plots': False, 'model.backbone': 'plain'}\n"
        "fcos.train('data', out='run', init='none', device='cpu', holdout=0, settings=settings)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "fcos.errors.FcosError: a process that loads images runs your script"
    )
    assert '`if __name__ == "__main__":`' in done.stderr
    assert "holds a run already" not in done.stderr
