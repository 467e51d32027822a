"""Data to train on, and a run that is finished."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from runs import QUICK, command, run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty coloured "people" (ellipses) with masks, four scenes, and a manifest."""
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(7)
    rows = []
    for number in range(24):
        size = (160, 200)
        image = Image.effect_noise(size, 60).convert("RGB")
        row = {"image": f"{number}.png", "source": "made", "split": "train", "licence": "CC0-1.0"}
        if number < 20:
            mask = Image.new("1", size)
            left, top = rng.randrange(20, 60), rng.randrange(10, 60)
            box = (left, top, left + rng.randrange(40, 80), top + rng.randrange(80, 130))
            ImageDraw.Draw(mask).ellipse(box, fill=1)
            image.paste((200, 120, rng.randrange(90)), (0, 0), mask)
            mask.save(folder / f"{number}-mask.png")
            row["mask"] = f"{number}-mask.png"
        else:
            row["mask"] = None
        image.save(folder / f"{number}.png")
        rows.append(row)
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of six steps."""
    out = tmp_path_factory.mktemp("finished")
    done = run(command(data, out, *QUICK, "--full-decoder-steps", "2"))
    assert done.returncode == 0, done.stderr
    return out
