"""Things that are nobody, drawn at random: shapes of any texture, and striped cloth.

Pasted beside and behind people by :mod:`finetune.compose`, they teach that not all that
stands out is a person.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .compose import CutOut, Rng


def cloth(rng: Rng) -> Image.Image:
    """Striped fabric in folds, as of flags, curtains and awnings: all that clothes are but worn.

    Two in five have a dotted corner, as flags have stars.
    """
    side = 420
    down, across = np.mgrid[:side, :side] / side
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.3)
    place = across * np.cos(angle) + down * np.sin(angle)
    fold = rng.normal(0, 0.02) * np.sin(2 * np.pi * (rng.uniform(1, 5) * across + rng.random()))
    colours = rng.uniform(0, 256, (int(rng.integers(2, 4)), 3))
    colours[0] = rng.choice([np.full(3, 235.0), colours[0]])
    stripe = np.floor((place + fold) * rng.uniform(3, 16)).astype(int) % len(colours)
    pixels = colours[stripe]
    if rng.random() < 0.4:
        corner = (across + fold < rng.uniform(0.3, 0.8)) & (down + fold < rng.uniform(0.3, 0.8))
        dots = np.cos(2 * np.pi * rng.uniform(4, 14) * np.stack((across + fold, down))).sum(axis=0)
        pixels[corner] = rng.uniform(0, 256, 3)
        pixels[corner & (dots > rng.uniform(0.8, 1.7))] = colours[0]
    light = 1 + rng.uniform(0, 0.35) * np.sin(2 * np.pi * (rng.uniform(1, 6) * across + down))
    noise = rng.normal(0, 4, (side, side, 1))
    pixels = pixels * light[..., None] + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def hung(rng: Rng, fabric: Image.Image) -> CutOut:
    """``fabric`` as it hangs: a rectangle, that a scene's edge or a person may cut."""
    width, height = (int(side * rng.uniform(0.35, 1.0)) for side in fabric.size)
    left = int(rng.integers(0, fabric.width - width + 1))
    top = int(rng.integers(0, fabric.height - height + 1))
    piece = fabric.crop((left, top, left + width, top + height))
    return CutOut(piece, Image.new("L", piece.size, 255), frozenset())


def shape(rng: Rng, texture: Image.Image) -> CutOut:
    """A salient object that is nobody: a random rounded shape cut from ``texture``."""
    side = int(min(texture.size) * rng.uniform(0.3, 0.9))
    left = int(rng.integers(0, texture.width - side + 1))
    top = int(rng.integers(0, texture.height - side + 1))
    image = texture.crop((left, top, left + side, top + side))
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
    radii = rng.uniform(0.2, 0.5, len(angles)) * side
    points = [
        (side / 2 + radius * np.cos(angle), side / 2 + radius * np.sin(angle))
        for angle, radius in zip(angles, radii, strict=True)
    ]
    outline = Image.new("L", image.size, 0)
    ImageDraw.Draw(outline).polygon(points, fill=255)
    rounded = outline.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.01, 0.06)))
    alpha = rounded.point([max(0, min(255, (value - 128) * 6 + 128)) for value in range(256)])
    # Far from the colours around it, as a real foreign object would be.
    tinted = ImageChops.add(image, Image.new("RGB", image.size, tuple(rng.integers(0, 90, 3))))
    if rng.random() < 0.5:
        tinted = ImageChops.invert(tinted)
    return CutOut(tinted, alpha, frozenset())
