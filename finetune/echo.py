"""Data echoing (Choi et al. 2019, arXiv:1907.05550): a prepared picture is used several times.

A GPU takes pictures faster than a machine's processors can compose and augment them. So the
last few batches are kept where the network is, and between two fresh batches come mixtures
of these, mirrored and lit at random. Of several processes each draws from its own share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

Batch = dict[str, Tensor]

#: How many fresh batches are kept to draw from.
KEPT = 16


def fresh_batches(first: int, end: int, times: int) -> tuple[int, int]:
    """Numbers, from and up to, of the fresh batches that steps ``first`` up to ``end`` need.

    They begin earlier than the first of them: a resumed run draws from the same pictures as
    one that was never stopped.
    """
    return max(0, first // times - _kept(times) + 1), -(-end // times)


def echoed(fresh: Iterable[Batch], first: int, end: int, times: int, seed: int) -> Iterator[Batch]:
    """The batches of steps ``first`` up to ``end``: every ``times``-th is new, the rest mixtures.

    Args:
        fresh: the batches that :func:`fresh_batches` names; every tensor is (N,C,H,W), and
            "image" is normalised.
        first: step at which to begin.
        end: step before which to end.
        times: how often a picture is used on average; 1 hands ``fresh`` on as it is.
        seed: with the step's number it decides what a mixture is made of.
    """
    recent: deque[Batch] = deque(maxlen=_kept(times))
    begin, _ = fresh_batches(first, end, times)
    for number, batch in enumerate(fresh, start=begin):
        recent.append(batch)
        for step in range(max(number * times, first), min((number + 1) * times, end)):
            yield batch if step == number * times else _mixture(recent, seed, step)


def _kept(times: int) -> int:
    """How many fresh batches are kept, the newest among them."""
    return KEPT if times > 1 else 1


def _mixture(recent: deque[Batch], seed: int, step: int) -> Batch:
    """A batch of pictures from ``recent``, each mirrored half of the time and lit anew."""
    rng = torch.Generator().manual_seed(hash((seed, step)))
    count = len(recent[-1]["image"])
    batches = torch.randint(len(recent), (count,), generator=rng).tolist()
    # From each place one picture: none comes twice in a mixture.
    places = torch.randperm(count, generator=rng).tolist()
    mirrored = (torch.rand(count, generator=rng) < 0.5).tolist()
    light = torch.empty(2, count, 1, 1, 1).uniform_(-0.15, 0.15, generator=rng)

    def drawn(name: str) -> Tensor:
        pictures = []
        for batch, place, flip in zip(batches, places, mirrored, strict=True):
            picture = recent[batch][name][place]
            pictures.append(picture.flip(-1) if flip else picture)
        return torch.stack(pictures)

    mixture = {name: drawn(name) for name in recent[-1]}
    gain, lift = light.to(mixture["image"].device)
    mixture["image"] = mixture["image"] * (1 + gain) + lift
    return mixture
