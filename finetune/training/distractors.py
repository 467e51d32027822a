"""Distractors that are drawn at random: shapes of any texture, and striped cloth.

:mod:`.composition` pastes them between people, as things that stand out and are not persons.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .composition import CutOut, Rng


def cloth(rng: Rng) -> Image.Image:
    """Striped fabric in folds, as of flags, curtains and awnings: like clothes that nobody wears.

    Two in five have a dotted corner, as flags have stars.
    """
    side = 420
    down, across = np.mgrid[:side, :side] / side
    depth, slope = _folds(rng, down, across)
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.3)
    place = across * np.cos(angle) + down * np.sin(angle) + depth
    colours = rng.uniform(0, 256, (int(rng.integers(2, 4)), 3))
    colours[0] = rng.choice([np.full(3, 235.0), colours[0]])
    colours += rng.uniform(0, 0.7) * (colours.mean(axis=1, keepdims=True) - colours)
    stripe = np.floor(place * rng.uniform(3, 16)).astype(int) % len(colours)
    pixels = colours[stripe]
    if rng.random() < 0.4:
        corner = (across + depth < rng.uniform(0.3, 0.8)) & (down + depth < rng.uniform(0.3, 0.8))
        dots = np.cos(2 * np.pi * rng.uniform(4, 14) * np.stack((across + depth, down))).sum(axis=0)
        pixels[corner] = rng.uniform(0, 256, 3)
        pixels[corner & (dots > rng.uniform(0.8, 1.7))] = colours[0]
    light = 1 + rng.uniform(0, 0.6) * slope / max(np.abs(slope).max(), 1e-6)
    noise = rng.normal(0, 4, (side, side, 1))
    pixels = (pixels * light[..., None] + noise).clip(0, 255).astype(np.uint8)
    # Cloth in the background is often out of focus.
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0, 2.5)))


def _folds(
    rng: Rng, down: npt.NDArray[np.float64], across: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How far folds shift the pattern, and how they turn the fabric to the light: both (H,W).

    Waves of falling height and rising frequency that run side by side, as in what hangs.
    """
    depth, slope = np.zeros_like(down), np.zeros_like(down)
    main = rng.uniform(-0.7, 0.7)
    for height in (0.06, 0.03, 0.015):
        turn = main + rng.normal(0, 0.3)
        waves = rng.uniform(1, 3) * 0.06 / height
        place = waves * (across * np.cos(turn) + down * np.sin(turn))
        phase = 2 * np.pi * (place + rng.random())
        height *= rng.uniform(0, 1)
        depth += height * np.sin(phase)
        slope += height * waves * np.cos(phase)
    return depth, slope


def hung(rng: Rng, fabric: Image.Image) -> CutOut:
    """``fabric`` as it hangs: a rectangle."""
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
    # Unlike the colours around it, as a real foreign object is.
    tinted = ImageChops.add(image, Image.new("RGB", image.size, tuple(rng.integers(0, 90, 3))))
    if rng.random() < 0.5:
        tinted = ImageChops.invert(tinted)
    return CutOut(tinted, alpha, frozenset())
