"""Which rows are trained on and which are held back."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from u2net_human_plugin.finetune.data.manifest import Row
from u2net_human_plugin.finetune.data.splits import held_back, in_split


def test_held_back_rows_do_not_depend_on_the_others() -> None:
    """Adding pictures moves none between training and validation; about the share is held."""
    rows = [Row(Path(f"{number}.jpg"), None, "a", "train") for number in range(2000)]
    share = sum(map(held_back, rows)) / len(rows)
    assert 0.06 < share < 0.10
    assert held_back(Row(Path("x"), None, "a", "val"))
    assert in_split(Row(Path("x"), None, "a", "val"), "val")


def test_crops_of_a_photo_and_pictures_that_look_alike_are_held_back_together() -> None:
    """What training has seen of a photo does not judge it, and its copies do not either."""
    answers = Counter()
    for number in range(400):
        alike = [
            Row(Path(f"{source}{number}.jpg"), None, source, "train", extra={"group": f"{number}"})
            for source in "abc"
        ]
        crops = [
            Row(
                Path(f"{number}-{crop}-{name}.jpg"),
                None,
                "a",
                "train",
                extra={"is_crop": True, "origin": {"name": "x.jpg", "sha256": f"{number:064}"}},
            )
            for crop, name in enumerate(("00a", "00b", "00c"))
        ]
        for rows in (crops, alike):
            assert len(set(map(held_back, rows))) == 1
            answers[held_back(rows[0])] += 1
    assert 30 < answers[True] < 100


@pytest.mark.parametrize(
    "extra",
    [{"group": None}, {"group": ""}, {"is_crop": True, "origin": "a site"}, {"is_crop": True}],
    ids=repr,
)
def test_what_a_foreign_manifest_says_does_not_decide_what_is_held_back(extra: Any) -> None:
    """Its rows are drawn one by one, by name."""
    rows = [Row(Path(f"{number}.jpg"), None, "a", "train") for number in range(200)]
    told = [dataclasses.replace(row, extra=extra) for row in rows]
    assert list(map(held_back, told)) == list(map(held_back, rows))
