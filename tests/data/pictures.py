"""Pictures and masks that tests of `prepare` are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from typer.testing import Result

#: Without YOLO and without colour estimation: what most tests need, in milliseconds.
PLAIN = ("--find", "masks", "--cutout-colours", "straight")

Prepare = Callable[..., Result]


def photo(seed: int, size: tuple[int, int] = (240, 320)) -> Image.Image:
    """A picture unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def drawn(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (240, 320)) -> Image.Image:
    """A mask of filled ellipses."""
    mask = Image.new("L", size)
    for box in boxes:
        ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask


PERSON = (40, 30, 200, 300)


def save(image: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def report(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "report.json").read_text("utf-8"))
    return content
