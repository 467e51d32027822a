"""Data echoing: which pictures come when, and that a resumed run gets the same ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from finetune.echo import KEPT, Batch, echoed, fresh_batches

COUNT = 4


def fresh(first: int, end: int, times: int) -> Iterator[Batch]:
    """Batches whose pictures say which they are; "alpha", and "image" on top, say where left is."""
    for number in range(*fresh_batches(first, end, times)):
        identity = torch.arange(number * COUNT, (number + 1) * COUNT, dtype=torch.float32)
        image = identity.view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()
        left_to_right = torch.tensor([0.0, 1.0]).expand(COUNT, 1, 2, 2)
        yield {"image": image + left_to_right, "identity": image, "alpha": left_to_right}


def batches(first: int, end: int, times: int, seed: int = 0) -> list[Batch]:
    return list(echoed(fresh(first, end, times), first, end, times, seed))


def identities(batch: Batch) -> list[int]:
    return [int(value) for value in batch["identity"][:, 0, 0, 0]]


def test_used_once_the_batches_come_as_they_are() -> None:
    assert [identities(batch)[0] // COUNT for batch in batches(3, 7, 1)] == [3, 4, 5, 6]


@pytest.mark.parametrize("times", [2, 3])
def test_every_so_many_batches_one_is_new_and_the_rest_are_of_recent_pictures(times: int) -> None:
    total = 40 * times
    steps = batches(0, total, times)
    assert len(steps) == total
    drawn = set()
    for step, batch in enumerate(steps):
        number = step // times
        numbers = [picture // COUNT for picture in identities(batch)]
        if step % times == 0:
            assert identities(batch) == list(range(number * COUNT, (number + 1) * COUNT))
        else:
            assert len(set(identities(batch))) == COUNT
            assert all(number - KEPT < drawn_from <= number for drawn_from in numbers)
            drawn.update(number - drawn_from for drawn_from in numbers)
    assert drawn == set(range(KEPT))  # all that is kept is drawn from


def test_resumed_run_gets_the_same_batches() -> None:
    whole = batches(0, 90, 3, seed=5)
    for first in (1, 44, 60, 89):
        rest = batches(first, 90, 3, seed=5)
        assert len(rest) == 90 - first
        for before, after in zip(whole[first:], rest, strict=True):
            assert all(torch.equal(before[name], after[name]) for name in before)
    other = batches(0, 90, 3, seed=6)
    assert any(identities(a) != identities(b) for a, b in zip(whole, other, strict=True))


def test_mixtures_are_mirrored_half_of_the_time_and_lit_anew() -> None:
    mirrored, gains = [], []
    for step, batch in enumerate(batches(0, 200, 2)):
        if step % 2 == 0:
            continue
        rows = batch["alpha"][:, 0, 0]
        mirrored += [bool(row[0] > row[1]) for row in rows]
        # The picture is mirrored with its mask, and lit alike all over: by 15 % and 0.15 at most.
        before = batch["identity"] + batch["alpha"]
        change = batch["image"] - before
        assert (change.abs() <= 0.15 * (1 + before) + 1e-3).all()
        left, right = change[:, 0, 0].unbind(-1)
        gain = (right - left) / (before[:, 0, 0, 1] - before[:, 0, 0, 0])
        assert (gain.abs() <= 0.15 + 1e-3).all()
        gains += left.tolist()
    assert 0.4 < sum(mirrored) / len(mirrored) < 0.6
    assert len(set(gains)) == len(gains)
