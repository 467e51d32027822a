"""Bent and turned pictures: mask and picture stay together."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from u2net_human_plugin.finetune.training.composition import Sample
from u2net_human_plugin.finetune.training.warp import bent, turned


@pytest.fixture
def sample() -> Sample:
    """A picture that is its own mask, so that the two can be compared after any change."""
    shades = np.add.outer(np.arange(90), 2 * np.arange(60)) % 256
    grey = Image.fromarray(shades.astype(np.uint8))
    return Sample(grey.convert("RGB"), grey, grey, 1, 0.5)


@pytest.mark.parametrize("change", [bent, turned])
def test_picture_mask_and_weight_change_alike(change: object, sample: Sample) -> None:
    """Whatever moves in the picture moves in its mask and weight as well."""
    assert callable(change)
    changed = change(np.random.default_rng(4), sample)
    picture = np.asarray(changed.image)[..., 0]
    assert changed.image.size == changed.alpha.size == changed.weight.size
    assert np.array_equal(picture, np.asarray(changed.alpha))
    assert np.array_equal(picture, np.asarray(changed.weight))
    assert (changed.persons, changed.person_height) == (1, 0.5)
    assert changed.image.size != sample.image.size or not np.array_equal(
        picture, np.asarray(sample.alpha)
    )


def test_bending_leaves_the_border_in_place(sample: Sample) -> None:
    """The first row and column stay where they are, up to what interpolation does."""
    before = np.asarray(sample.alpha).astype(int)
    after = np.asarray(bent(np.random.default_rng(4), sample).alpha).astype(int)
    inner = np.abs(after - before)[20:70, 15:45]
    assert np.abs(after - before)[0].mean() < 1
    assert inner.mean() > 3


def test_every_turn_occurs(sample: Sample) -> None:
    """Left, right and upside down, and nothing that mirrors."""
    rng = np.random.default_rng(0)
    grey = np.asarray(sample.alpha)
    turns = [np.rot90(grey, quarter) for quarter in (1, 2, 3)]
    seen = [
        next(i for i, turn in enumerate(turns) if np.array_equal(turn, np.asarray(found)))
        for found in (turned(rng, sample).alpha for _ in range(40))
    ]
    assert set(seen) == {0, 1, 2}
