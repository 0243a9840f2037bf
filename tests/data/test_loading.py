"""Batches: a function of (seed, epoch), whoever makes them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from moreaugrad.data.augment import Augment
from moreaugrad.data.examples import open_examples
from moreaugrad.data.loading import Batch, Loader

CELLS = open_examples("cells", size=24, count=50)
AUGMENT = Augment(size=16, resize=20, pad=2, rotate=20, blur=1, brightness=0.3)


def loader(**more) -> Loader:
    return Loader(more.pop("examples", CELLS), AUGMENT, **{"batch": 8, "seed": 4, **more})


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(getattr(a, part), getattr(b, part))
        for a, b in zip(left, right, strict=True)
        for part in ("x", "y", "ids", "attention")
    )


def test_batches_hold_images_labels_and_maps(untouched_generators) -> None:
    with untouched_generators():
        batches = list(loader().epoch(0))
    assert len(batches) == len(loader()) == 6
    for batch in batches:
        assert batch.x.shape == (8, 3, 16, 16)
        assert batch.attention.shape == (8, 1, 16, 16)
        assert batch.x.dtype == batch.attention.dtype == torch.float32
        assert 0 <= float(batch.x.min()) < 0.5 < float(batch.x.max()) <= 1
        assert torch.equal(batch.y, CELLS.labels[batch.ids])
    seen = torch.cat([batch.ids for batch in batches])
    assert len(seen.unique()) == 48
    assert seen.tolist() != sorted(seen.tolist())


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    one = loader()
    first, second = list(one.epoch(0)), list(one.epoch(1))
    assert same(first, list(one.epoch(0)))
    assert same(second, list(loader().epoch(1)))
    assert not same(first, second)
    assert not same(first, list(loader(seed=5).epoch(0)))


def test_workers_make_the_same_batches() -> None:
    alone, helped = loader(drop_last=False), loader(drop_last=False, workers=2)
    for epoch in (0, 3):
        assert same(list(alone.epoch(epoch)), list(helped.epoch(epoch)))
    interrupted = helped.epoch(4)
    next(interrupted)
    interrupted.close()
    assert same(list(alone.epoch(5)), list(helped.epoch(5)))


def test_an_epoch_goes_on_at_a_batch() -> None:
    assert same(list(loader().epoch(2))[4:], list(loader().epoch(2, start=4)))
    assert list(loader().epoch(2, start=6)) == []


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 9])
def test_shards_are_the_rows_of_each_batch(shards: int) -> None:
    whole = list(loader(drop_last=False).epoch(1))
    parts = [
        [piece for (piece,) in loader(drop_last=False).pieces(1, (s,), shards)]
        for s in range(shards)
    ]
    together = [
        Batch(*(torch.cat([getattr(p, n) for p in ps]) for n in ("x", "y", "ids", "attention")))
        for ps in zip(*parts, strict=True)
    ]
    assert same(whole, together)
    counts = [len(part[0]) for part in parts]
    assert max(counts) - min(counts) <= 1
    pieces = list(loader(drop_last=False).pieces(1, range(shards), shards))
    assert all(same([piece[s] for piece in pieces], parts[s]) for s in range(shards))


def test_an_image_changes_with_the_epoch_but_not_with_its_place() -> None:
    part = CELLS.subset([30, 4, 17])
    few = next(loader(examples=part, batch=3, shuffle=False).epoch(1))
    every = {
        int(i): x for b in loader(drop_last=False).epoch(1) for i, x in zip(b.ids, b.x, strict=True)
    }
    assert few.ids.tolist() == [30, 4, 17]
    for key, x in zip(few.ids.tolist(), few.x, strict=True):
        assert torch.equal(x, every[key])
    assert not torch.equal(few.x, next(loader(examples=part, batch=3, shuffle=False).epoch(2)).x)


def test_evaluation_keeps_the_order_and_the_last_batch() -> None:
    plain = Loader(CELLS, Augment.evaluation(24), batch=8, shuffle=False)
    batches = list(plain.epoch(0))
    assert [len(batch) for batch in batches] == [8] * 6 + [2]
    assert torch.cat([batch.ids for batch in batches]).tolist() == list(range(50))
    for index, x in enumerate(torch.cat([batch.x for batch in batches])):
        assert np.array_equal(
            (x * 255).round().byte().permute(1, 2, 0).numpy(), CELLS.pixels(index)[0]
        )
    assert same(batches, list(plain.epoch(7)))


def test_an_image_without_a_map_has_a_map_of_zeros() -> None:
    """In a data set where others have one."""

    def every_other(key: int):
        image, attention = CELLS.read(key)
        return image, attention if key % 2 else None

    plain = Loader(replace(CELLS, read=every_other), Augment.evaluation(24), batch=50)
    (batch,) = plain.epoch(0)
    whole = next(Loader(CELLS, Augment.evaluation(24), batch=50).epoch(0))
    odd = batch.ids % 2 == 1
    assert torch.equal(batch.attention[odd], whole.attention[odd])
    assert not batch.attention[~odd].any()


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at most the 50 examples that there are, got 51"):
        loader(batch=51)
    with pytest.raises(ValueError, match="batch: expected at least one example, got 0"):
        loader(batch=0)
    with pytest.raises(ValueError, match="workers: expected a number of processes >= 0, got -1"):
        loader(workers=-1)
    with pytest.raises(ValueError, match="shard: expected a number from 0 to 1, got 2"):
        next(loader().pieces(0, (2,), 2))
