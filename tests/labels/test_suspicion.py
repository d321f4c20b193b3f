"""Each kind of mistake in a scene made by hand, known errors, and what they say about the chance of being wrong."""

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from judging import dataset, record
from scripted import CONFIG, GREY, detector

from fcos.labels import ranking
from fcos.labels.calibrate import expected, fit
from fcos.labels.checking import caught
from fcos.labels.evidence import Evidence, gather
from fcos.labels.inject import CLASS, DUPLICATE, KINDS, MISSING, SHIFTED, SPURIOUS, spoil
from fcos.labels.suspicion import Pile, Sought, Suspect, suspects
from fcos.overlap import pairwise_iou

CAT, DOG = 0, 1


def evidence(*seen):
    """A model that sees (box, label, score) and nothing else, each by three locations that agree."""
    boxes = np.array([s[0] for s in seen], np.float32).reshape(-1, 4)
    labels, scores = np.array([s[1] for s in seen], np.int64), np.array([s[2] for s in seen], np.float32)
    dense = np.zeros((len(seen), 2), np.float32)
    dense[np.arange(len(seen)), labels] = scores
    order = np.argsort(-scores)
    return Evidence(
        np.repeat(boxes, 3, axis=0), np.repeat(dense, 3, axis=0), boxes[order], labels[order], scores[order],
        3 * scores[order], np.ones(2, bool),
    )  # fmt: skip


LEFT, RIGHT, FAR = [50, 50, 150, 150], [300, 60, 420, 200], [500, 300, 600, 400]


def worst(of, truth):
    """The most suspicious of each kind."""
    best = {}
    for suspect in suspects(of, truth):
        if suspect.score > best.get(suspect.kind, suspect).score or suspect.kind not in best:
            best[suspect.kind] = suspect
    return best


def test_a_scene_in_which_all_is_right():
    seen = evidence((LEFT, CAT, 0.9), (RIGHT, DOG, 0.8))
    found = worst(seen, record(1, [LEFT, RIGHT], [CAT, DOG]))
    assert found[MISSING].score < 0.05
    assert found[CLASS].score < 0.05
    assert found[SHIFTED].score < 0.05
    assert found[SPURIOUS].score < 0.21


def test_a_missing_box():
    seen = evidence((LEFT, CAT, 0.9), (RIGHT, DOG, 0.8))
    found = worst(seen, record(1, [LEFT], [CAT]))[MISSING]
    assert found.score == pytest.approx(0.8, abs=0.01)
    assert (found.row, found.label, list(found.box)) == (-1, DOG, RIGHT)
    # in a region to ignore it is not missing
    assert worst(seen, record(1, [LEFT, RIGHT], [CAT, DOG], ignore=[False, True]))[MISSING].score < 0.05
    # nor is one that lies in such a region, whatever its class, or a part of what is seen more surely
    within = evidence((LEFT, CAT, 0.9), ([320, 80, 380, 140], DOG, 0.8))
    assert worst(within, record(1, [LEFT, RIGHT], [CAT, CAT], ignore=[False, True]))[MISSING].score < 0.05
    parts = evidence((LEFT, CAT, 0.9), ([60, 60, 140, 140], CAT, 0.5))
    assert [s.score for s in suspects(parts, record(1)) if s.kind == MISSING] == pytest.approx([0.9, 0], abs=0.01)


def test_a_wrong_class_and_none_where_the_other_object_is_annotated():
    seen = evidence((LEFT, CAT, 0.9), (RIGHT, DOG, 0.8))
    found = worst(seen, record(1, [LEFT, RIGHT], [CAT, CAT]))[CLASS]
    assert (found.row, found.label) == (1, DOG)
    assert found.score == pytest.approx(0.8, abs=0.01)
    # a rider on a horse: two objects in one place, both annotated
    both = evidence((LEFT, CAT, 0.5), ([50, 40, 150, 150], DOG, 0.9))
    assert worst(both, record(1, [LEFT, [50, 40, 150, 150]], [CAT, DOG]))[CLASS].score < 0.1
    crowd = record(1, [LEFT, [50, 40, 150, 150]], [CAT, DOG], ignore=[False, True])
    assert worst(both, crowd)[CLASS].score < 0.1


def test_a_shifted_box_says_where_it_belongs():
    seen = evidence((LEFT, CAT, 0.9), (RIGHT, DOG, 0.8))
    given = [80, 60, 190, 150]
    found = worst(seen, record(1, [given, RIGHT], [CAT, DOG]))[SHIFTED]
    overlap = pairwise_iou(np.array([given]), np.array([LEFT]))[0, 0]
    assert found.row == 0
    assert found.score == pytest.approx(0.9 * (1 - overlap), abs=0.01)
    np.testing.assert_allclose(found.box, LEFT, atol=0.5)
    # a surer object of its class beside it, which is annotated too, is not where it belongs
    beside = [90, 50, 190, 150]
    pair = evidence((LEFT, CAT, 0.5), (beside, CAT, 0.9))
    assert worst(pair, record(1, [LEFT, beside], [CAT, CAT]))[SHIFTED].score < 0.05


def test_a_box_too_many_and_two_for_one_object():
    seen = evidence((LEFT, CAT, 0.9), (RIGHT, DOG, 0.8))
    found = worst(seen, record(1, [LEFT, RIGHT, FAR], [CAT, DOG, DOG]))[SPURIOUS]
    assert (found.row, found.score) == (2, 1.0)
    twice = worst(seen, record(1, [LEFT, [52, 48, 155, 150], RIGHT], [CAT, CAT, DOG]))[DUPLICATE]
    assert (twice.row, twice.other, list(twice.box)) == (1, 0, LEFT)  # the one that fits less is too many
    assert twice.score > 0.8
    assert DUPLICATE not in worst(seen, record(1, [LEFT, [75, 50, 150, 150]], [CAT, DOG]))  # a rider and a horse
    # an object of another class than is annotated is no box too many, at least not as surely
    assert worst(seen, record(1, [LEFT], [DOG]))[SPURIOUS].score == pytest.approx(1 - 0.7 * 0.9)
    # two objects that the model sees as two
    pair = evidence((LEFT, CAT, 0.9), ([85, 50, 185, 150], CAT, 0.8))
    assert worst(pair, record(1, [LEFT, [85, 50, 185, 150]], [CAT, CAT]))[DUPLICATE].score < 0.2
    # of classes that the model does not know it sees neither one nor two
    blind = replace(evidence((LEFT, CAT, 0.9)), known=np.array([True, False]))
    fork_and_spoon = record(1, [LEFT, [52, 48, 155, 150]], [DOG, DOG])
    assert DUPLICATE not in worst(blind, fork_and_spoon)
    near = [70, 50, 170, 150]
    pair = evidence((LEFT, CAT, 0.9), (near, CAT, 0.8))
    assert worst(pair, record(1, [LEFT, near], [CAT, CAT]))[DUPLICATE].score < 0.2


def test_what_is_asked_for_alone_is_the_same_as_out_of_all():
    rng = np.random.default_rng(2)
    low = rng.uniform(0, 300, (12, 2))
    boxes = np.concatenate([low, low + rng.uniform(40, 200, (12, 2))], axis=1).astype(np.float32)
    kinds, scores = rng.integers(0, 2, 12), rng.uniform(0.3, 1, 12)
    seen = evidence(*((b, int(k), float(s)) for b, k, s in zip(boxes, kinds, scores, strict=True)))
    truth = record(1, boxes[:8] + 9, rng.integers(0, 2, 8), [False] * 7 + [True])
    lost = boxes[9:11], kinds[9:11]
    part = suspects(seen, truth, Sought(np.arange(8) % 3 == 0, *lost))

    def asked(s):
        if s.row >= 0:
            return s.row in (0, 3, 6) or s.other in (0, 3, 6)
        return bool(((pairwise_iou(np.array([s.box]), lost[0])[0] >= 0.5) & (lost[1] == s.label)).any())

    assert part == [s for s in suspects(seen, truth) if asked(s)]
    assert {s.kind for s in part} >= {MISSING, CLASS, SHIFTED, SPURIOUS}


def test_empty_is_normal():
    assert suspects(evidence(), record(1)) == []
    assert {s.kind for s in suspects(evidence(), record(1, [LEFT], [CAT]))} == {SPURIOUS}
    assert {s.kind for s in suspects(evidence((LEFT, CAT, 0.9)), record(1))} == {MISSING}


def crowded(count=60, seed=0):
    rng = np.random.default_rng(seed)
    records = []
    for k in range(count):
        corner = rng.uniform(0, 300, (6, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 120, (6, 2))], axis=1)
        records.append(record(k + 1, boxes, rng.integers(0, 3, 6), rng.random(6) < 0.1))
    return dataset(*records, names=("a", "b", "c"))


def test_known_errors_are_what_they_say():
    whole = crowded()
    copies = spoil(whole, 0.05, seed=3)
    solid = sum(int((~r.ignore).sum()) for r in whole.records)
    number = round(0.05 * solid)
    counts = {kind: sum(c.kinds.count(kind) for c in copies) for kind in KINDS}
    counts[MISSING] = sum(len(c.lost) for c in copies)
    assert all(0.8 * number <= n <= number for n in counts.values()), counts
    for before, copy in zip(whole.records, copies, strict=True):
        after = copy.record
        assert len(copy.kinds) == len(after.boxes) == len(after.labels) == len(after.ignore)
        np.testing.assert_array_equal(before.boxes[before.ignore], after.boxes[after.ignore])
        iou = pairwise_iou(after.boxes, before.boxes) if len(after.boxes) else np.zeros((0, 6))
        for k, kind in enumerate(copy.kinds):
            best = iou[k].max()
            same = before.labels[iou[k].argmax()] == after.labels[k]
            if kind in ("", CLASS):
                assert best == pytest.approx(1)
                assert same == (kind == "")
            elif kind == SPURIOUS:
                assert best <= 0.2 + 1e-6
            else:
                low, high = (0.4, 0.7) if kind == SHIFTED else (0.6, 0.9)
                assert ((iou[k] >= low - 1e-5) & (iou[k] <= high + 1e-5)).any()
    again = spoil(whole, 0.05, seed=3)
    assert all(a.kinds == b.kinds for a, b in zip(copies, again, strict=True))
    assert any(a.kinds != b.kinds for a, b in zip(copies, spoil(whole, 0.05, seed=4), strict=True))


def test_a_perfect_model_catches_every_known_error():
    whole = crowded()
    for copy, truth in zip(spoil(whole, 0.05, seed=1), whole.records, strict=True):
        dense = np.zeros((len(truth.boxes), 3), np.float32)
        dense[np.arange(len(truth.boxes)), truth.labels] = 0.95
        scores = np.full(len(truth.boxes), 0.95, np.float32)
        all_seen = Evidence(truth.boxes, dense, truth.boxes, truth.labels, scores, scores, np.ones(3, bool))
        hits = list(caught(suspects(all_seen, copy.record), copy))
        wanted = [k for k in copy.kinds if k in (CLASS, SPURIOUS)]
        assert sorted(h.kind for h in hits if h.kind in (CLASS, SPURIOUS)) == sorted(wanted)


# ------------------------------------------------------------------ chances


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def even(rng, count):
    """Right boxes that get rarer with the score at one pace."""
    return rng.normal(-3, 1.5, count)


def ending(rng, count):
    """Right boxes that get rarer ever faster."""
    return np.minimum(rng.normal(-2, 1, count), rng.normal(-2, 1, count))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.1])
@pytest.mark.parametrize("right", [even, ending])
def test_the_promise_holds_in_simulation(share, right):
    """Scores of right and wrong boxes are drawn from known densities."""
    inside, said, true = 0, [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        number = round(1500 * share)
        given = sigmoid(np.concatenate([right(rng, 1500 - number), rng.normal(1, 1.5, number)]))
        wrong = np.arange(1500) >= 1500 - number
        curve = fit(sigmoid(rng.normal(1, 1.5, 300)), given, 300)
        first = np.argsort(-given)[:50]
        about, low, high = expected([curve.chance(given[first])], [curve.weight])
        inside += low <= wrong[first].sum() <= high
        said.append(about)
        true.append(wrong[first].sum())
    assert inside >= 7  # of 10; 9 are promised
    assert abs(np.mean(said) - np.mean(true)) < 4


def test_kinds_are_promised_too_few_or_too_many_together():
    """One model judges them all: twice the things of one kind and two kinds alike are as uncertain."""
    chances, weight = np.repeat([[0.1], [0.5], [0.9]], 40, axis=1), np.full(3, 1 / 3)
    twice = expected([np.concatenate([chances, chances], axis=1)], [weight])
    two = expected([chances, chances], [weight, weight])
    assert two[0] == pytest.approx(twice[0]) == pytest.approx(40)
    np.testing.assert_allclose(two[1:], twice[1:], atol=3)
    assert two[1] < 15
    assert two[2] > 65


def test_few_errors_say_little_and_a_higher_score_is_never_less_suspicious():
    rng = np.random.default_rng(0)
    curve = fit(sigmoid(rng.normal(1, 1, 8)), sigmoid(rng.normal(-2, 1, 40)), 10)
    chances = curve.mean(np.linspace(0.01, 0.99, 50))
    assert (np.diff(chances) >= -1e-9).all()
    mean, low, high = curve.rate()
    assert low <= mean <= high
    upside_down = fit(sigmoid(rng.normal(-2, 1, 40)), sigmoid(rng.normal(1, 1, 400)), 40)
    assert (np.diff(upside_down.mean(np.linspace(0.01, 0.99, 50))) >= -1e-9).all()
    assert fit(np.array([0.5]), np.array([0.1, 0.2]), 1).mean(np.array([0.9])).shape == (1,)
    assert expected([], []) == (0.0, 0, 0)


@pytest.mark.parametrize(("row", "columns"), [((20, 20, 60, 60), (0, 102, 128)), ((20, 20, 127, 60), (128,))])
def test_a_model_of_tiles_is_asked_through_its_tiles(row, columns):
    """Tiles of 128 pixels of an image of 256, and the whole of it; the network says the same of each. A box that the
    right edge of its tile cuts is no evidence, but at the edge of the image."""
    tiles = CONFIG.override("data.tile=128")
    model = detector([((36, 36), row, 0, 0.9, 0.9)], tiles)
    told = gather(model, np.full((256, 256, 3), 127, np.uint8), torch.arange(2), 2)
    alone = gather(detector([((36, 36), row, 0, 0.9, 0.9)]), GREY, torch.arange(2), 2)
    boxes = {(row[0] + x, row[1] + y, row[2] + x, row[3] + y) for x in columns for y in (0, 102, 128)}
    boxes |= {tuple(2 * v for v in row)}  # the whole image, at half its size
    assert {tuple(np.round(box).tolist()) for box in told.peaks} == boxes
    assert {tuple(np.round(box).tolist()) for box in told.boxes} == boxes
    np.testing.assert_allclose(told.votes, alone.votes[0])
    np.testing.assert_allclose(told.peak_scores, alone.peak_scores[0])


def test_a_pile_gives_back_what_was_put_on_it_and_stays_small():
    """A set of 10,000 images has some million suspects."""
    pile, rng = Pile(MISSING), np.random.default_rng(0)

    def one(k):
        box = tuple(rng.random(4).tolist())
        return Suspect(
            MISSING, rng.random(), -1, k, box, k % 5, rng.random(), 0.0, 0.5, -1, tuple(rng.random(9).tolist())
        )

    first = [(3 * k, one(k)) for k in range(3)]
    for item in first:
        pile.append(*item)
    assert (len(pile), list(pile), pile[2]) == (3, first, first[2])
    assert not list(Pile(CLASS))
    tracemalloc.start()
    for k in range(5000):
        pile.append(k, one(k))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 5000 * 250


def test_no_suspect_is_ranked_by_a_forest_that_has_learned_from_its_half(monkeypatch):
    rng, given, injected = np.random.default_rng(0), Pile(MISSING), Pile(MISSING)
    for k in range(200):
        suspect = Suspect(MISSING, rng.random(), -1, -1, (0, 0, 9, 9), 0, 0.5, 0.0, 0.0, -1, (float(k),))
        (given, injected)[k % 2].append(k, suspect)
    judged = []

    def grow(rows, labels, weight):
        learned = set(rows[:, -1])

        def log_odds(rows):
            assert learned.isdisjoint(rows[:, -1])
            judged.extend(rows[:, -1])
            return np.zeros(len(rows))

        return SimpleNamespace(log_odds=log_odds)

    monkeypatch.setattr(ranking, "grow", grow)
    ranking.rank(given, injected)
    assert len(judged) == len(set(judged)) > 190


def test_the_chances_of_many_suspects_are_looked_up_in_parts():
    curve, scores = fit(np.zeros(0), np.zeros(0), 10), np.random.default_rng(0).random(50_000)
    tracemalloc.start()
    chances = curve.mean(scores)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6
    np.testing.assert_allclose(chances, curve.weight @ curve.chance(scores))
