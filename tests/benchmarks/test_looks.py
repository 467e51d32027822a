"""What closer looks cost and gain, on pictures where that is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from light import Light, people_of_light
from PIL import Image

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.benchmarks import looks
from u2net_human_plugin.finetune.evaluation.measure import Settings

#: Boxes of light in a picture of 2400 x 1600, and what the pipeline does after the first look.
PICTURES = {
    "large": ([(200, 80, 2200, 1560)], looks.ONE, 1),
    # Four corners, which show nobody else, and the figure, with an arm, itself.
    "small": ([(1126, 722, 1163, 845), (1163, 770, 1260, 773)], looks.CLOSER, 1 + 4 + 1),
}


@pytest.fixture
def report(tmp_path: Path) -> dict:
    rows = []
    for name, (boxes, _, _) in PICTURES.items():
        picture = people_of_light((2400, 1600), *boxes)
        picture.save(tmp_path / f"{name}.png")
        mask = np.asarray(picture.convert("L")) > 128
        Image.fromarray((mask * 255).astype(np.uint8)).save(tmp_path / f"{name}_mask.png")
        row = {"image": f"{name}.png", "mask": f"{name}_mask.png", "source": "light"}
        rows.append(json.dumps({**row, "split": "test"}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    return looks.measure_looks(Settings(str(tmp_path), consistency=0), Light())


def test_photos_are_told_apart_by_what_was_looked_at(report: dict) -> None:
    """Kinds and views, one by one."""
    for kind in looks.KINDS:
        expected = [views for _, k, views in PICTURES.values() if k == kind]
        found = report["kinds"].get(kind, {"pictures": 0, "views": 0})
        assert (found["pictures"], found["views"]) == (len(expected), sum(expected)), kind
    assert report["pictures"] == len(PICTURES)
    assert report["views"] == sum(views for *_, views in PICTURES.values())


def test_scores_are_of_the_first_look_and_of_all(report: dict) -> None:
    """Of somebody large both are the same; of a small figure the first look misses a thin arm."""
    alone = report["kinds"][looks.ONE]["people"]["iou"]
    assert alone["before"] == alone["after"]
    assert alone["after"]["mean"] > 0.95
    small = report["kinds"][looks.CLOSER]
    assert small["with_people"] == 1
    assert small["people"]["iou"]["difference"]["mean"] > 0


def test_the_table_has_a_line_for_each_kind(report: dict) -> None:
    """Shares of photos and of views, in one table."""
    lines = looks.table(report).splitlines()
    assert lines[2].startswith("| none | 50% | 14% |")
    assert lines[3].startswith("| closer | 50% | 86% |")
    assert lines[-1] == "2 photos, 3.50 views each."


def test_a_photo_that_cannot_be_measured_is_named(tmp_path: Path) -> None:
    """Its looks would be counted as another photo's."""
    people_of_light((60, 40), (10, 5, 50, 35)).save(tmp_path / "one.png")
    Image.new("L", (9, 9), 255).save(tmp_path / "mask.png")
    row = {"image": "one.png", "mask": "mask.png", "source": "light", "split": "test"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(DataError, match=r"one\.png: "):
        looks.measure_looks(Settings(str(tmp_path), consistency=0), Light())
