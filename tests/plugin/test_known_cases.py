"""Failures that users reported, on pictures that packages bring: they must not come back."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data

from u2net_human_plugin import HumanSegmenter, Options

Mask = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def segmenter() -> HumanSegmenter:
    """The bundled weights with the default options, whatever the environment says."""
    return HumanSegmenter(options=Options())


def mask_of(segmenter: HumanSegmenter, picture: Image.Image) -> Mask:
    return np.asarray(segmenter.mask(picture))


def test_a_head_before_something_dark_stays(segmenter: HumanSegmenter) -> None:
    """ultralytics' bus.jpg: the face of the man in the light coat, before the windscreen."""
    assets = pytest.importorskip("ultralytics.utils", reason="bus.jpg comes with it").ASSETS
    mask = mask_of(segmenter, Image.open(assets / "bus.jpg").convert("RGB"))
    assert (mask[405:475, 105:150] > 127).mean() > 0.9


def test_two_men_are_solid(segmenter: HumanSegmenter) -> None:
    """ultralytics' zidane.jpg: both faces and the white shirt have no holes."""
    assets = pytest.importorskip("ultralytics.utils", reason="zidane.jpg comes with it").ASSETS
    mask = mask_of(segmenter, Image.open(assets / "zidane.jpg").convert("RGB"))
    for place in (np.s_[280:350, 570:620], np.s_[110:190, 960:1010], np.s_[430:560, 380:560]):
        assert mask[place].mean() > 215


def saved(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize("quality", [75, 20, 8])
def test_compression_loses_nobody(segmenter: HumanSegmenter, quality: int) -> None:
    """A portrait as a messenger's thumbnail has it: her face and suit stay."""
    mask = mask_of(segmenter, saved(Image.fromarray(data.astronaut()), quality))
    assert (mask[60:160, 190:270] > 127).mean() > 0.9
    assert (mask[320:420, 130:260] > 127).mean() > 0.9


@pytest.mark.parametrize("share", [0.7, 0.55, 0.45])
def test_a_head_that_the_frame_cuts_stays(segmenter: HumanSegmenter, share: float) -> None:
    """The top of a portrait, whose person the lower edge cuts."""
    picture = Image.fromarray(data.astronaut())
    mask = mask_of(segmenter, picture.crop((0, 0, 512, round(512 * share))))
    assert (mask[60:160, 190:270] > 127).mean() > 0.9


@pytest.mark.parametrize("name", ["coffee", "hubble_deep_field", "brick", "page"])
def test_pictures_with_nobody_in_them(segmenter: HumanSegmenter, name: str) -> None:
    """A cup, stars, a wall, print: under one per cent is marked."""
    mask = mask_of(segmenter, Image.fromarray(getattr(data, name)()))
    assert (mask > 127).mean() < 0.01


def test_grey_pictures(segmenter: HumanSegmenter) -> None:
    """scikit-image's camera man, grey: he is there, the sky is not."""
    mask = mask_of(segmenter, Image.fromarray(data.camera()))
    assert (mask[200:300, 90:150] > 127).mean() > 0.95
    assert mask[20:60, 20:480].mean() < 5
