"""Alpha matting and foreground colours, against a picture whose alpha and colours are known."""

from __future__ import annotations

import numpy as np
import pytest
from light import Light, people_of_light
from PIL import Image, ImageFilter

from u2net_human_plugin.matting import decontaminated, matted
from u2net_human_plugin.options import Options
from u2net_human_plugin.segmenter import HumanSegmenter

pytest.importorskip("pymatting", reason="comes with both hosts")
RED, BLUE = np.array([200.0, 40, 40]), np.array([30.0, 50, 180])


def blended() -> tuple[Image.Image, Image.Image]:
    """A red disc with soft strands before blue, and its exact alpha."""
    y, x = np.mgrid[:200, :240]
    angle, away = np.arctan2(y - 100, x - 120), np.hypot(y - 100, x - 120)
    alpha = ((60 + 6 * np.sin(24 * angle) - away) / 4 + 0.5).clip(0, 1)
    picture = alpha[..., None] * RED + (1 - alpha[..., None]) * BLUE
    return Image.fromarray(picture.round().astype(np.uint8)), Image.fromarray(
        (alpha * 255).round().astype(np.uint8)
    )


def error(found: Image.Image, truth: Image.Image) -> float:
    return float(np.abs(np.asarray(found, float) - np.asarray(truth, float)).mean())


def test_matting_finds_the_strands_that_a_rough_mask_lacks() -> None:
    """The error of a blurred mask falls to a third or less; far from the edge nothing changes."""
    rgb, truth = blended()
    rough = truth.filter(ImageFilter.GaussianBlur(5))
    found = matted(rough, rgb)
    assert error(found, truth) < error(rough, truth) / 3
    assert found.getpixel((5, 5)) == 0
    assert found.getpixel((120, 100)) == 255


@pytest.mark.parametrize("level", [0, 90, 255])
def test_matting_leaves_flat_masks_alone(level: int) -> None:
    """Without a sure figure on a sure ground there is nothing to solve."""
    rgb, _ = blended()
    assert matted(Image.new("L", rgb.size, level), rgb).getextrema() == (level, level)


def test_matting_is_an_option_of_the_pipeline() -> None:
    """refine="matting" gives a mask of the picture's size that still shows the person."""
    picture = people_of_light((300, 200), (60, 40, 150, 180))
    mask = HumanSegmenter(network=Light(), options=Options(refine="matting")).mask(picture)
    assert (mask.size, mask.getpixel((100, 100)), mask.getpixel((250, 20))) == ((300, 200), 255, 0)


def test_the_foreground_is_free_of_the_grounds_colour() -> None:
    """In the band the colour comes back to the figure's; elsewhere not a pixel changes."""
    rgb, alpha = blended()
    pure = np.asarray(decontaminated(rgb, alpha), float)
    known = np.asarray(alpha)
    half = (known > 90) & (known < 200)
    before = np.abs(np.asarray(rgb, float) - RED)[half].mean()
    assert np.abs(pure - RED)[half].mean() < before / 4
    same = (known == 0) | (known == 255)
    assert (pure[same] == np.asarray(rgb)[same]).all()


def test_a_cutout_has_the_mask_as_alpha() -> None:
    """With the picture's own colours, unless they are to be free of the ground's."""
    picture = people_of_light((300, 200), (60, 40, 150, 180))
    segmenter = HumanSegmenter(network=Light())
    plain = segmenter.cutout(picture)
    assert plain.getchannel("A").tobytes() == segmenter.mask(picture).tobytes()
    assert plain.convert("RGB").tobytes() == picture.tobytes()
    pure = segmenter.cutout(picture, decontaminate=True)
    assert pure.getchannel("A").tobytes() == plain.getchannel("A").tobytes()
