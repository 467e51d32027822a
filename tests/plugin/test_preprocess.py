"""From an image to the network's input: known answers, odd modes, parity with rembg."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from u2net_human_plugin.preprocess import (
    MEAN,
    SIZE,
    STD,
    brightest_value,
    normalize,
    reduced,
    to_rgb,
)


def flat(value: int, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (37, 53), (320, 320)])
def test_shape_and_type(size):
    """Whatever the picture's shape, the input is (3,SIZE,SIZE) float32, contiguous, finite."""
    array = normalize(reduced(flat(100, size)))
    assert array.shape == (3, SIZE, SIZE)
    assert array.dtype == np.float32
    assert array.flags["C_CONTIGUOUS"]
    assert np.isfinite(array).all()


@pytest.mark.parametrize("value", [255, 128, 1])
def test_flat_pictures_are_white(value):
    """Divided by its own brightest value, any flat picture but black is white."""
    expected = ((1 - MEAN) / STD)[:, None, None]
    np.testing.assert_allclose(normalize(reduced(flat(value))) - expected, 0, atol=1e-6)


def test_black_stays_black():
    """A black picture has nothing to divide by and gives no NaN."""
    expected = (-MEAN / STD)[:, None, None]
    np.testing.assert_allclose(normalize(reduced(flat(0))) - expected, 0, atol=1e-6)


def test_normalize_known_answer():
    """(value / brightest − mean) / std, by channel, channels first."""
    rgb = np.array([[[0, 50, 100], [200, 25, 10]]], np.uint8)
    expected = (rgb / 200 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert normalize(rgb).shape == (3, 1, 2)
    np.testing.assert_allclose(normalize(rgb), expected.transpose(2, 0, 1), atol=1e-6)


def test_a_part_is_seen_in_the_whole_pictures_light():
    """A dark part gets the values it has in the whole picture; nothing is brighter than one."""
    part = np.array([[[40, 40, 40], [200, 250, 40]]], np.uint8)
    assert brightest_value(part) == 250
    expected = ([[0.2, 0.2, 0.2], [1, 1, 0.2]] - MEAN) / STD
    np.testing.assert_allclose(normalize(part, 200)[:, 0].T, expected, atol=1e-6)


def test_normalize_empty():
    """An array without pixels stays one."""
    assert normalize(np.zeros((0, 0, 3), np.uint8)).shape == (3, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr",
                                  "HSV", "LAB", "I", "F", "I;16"])  # fmt: skip
def test_every_mode(mode):
    """Every mode Pillow can hold becomes RGB of the same size."""
    image = Image.new(mode, (3, 2))
    assert (to_rgb(image).mode, to_rgb(image).size) == ("RGB", (3, 2))


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        pytest.param([0, 0x8080, 0xFFFF], np.uint16, [0, 128, 255], id="16 bit"),
        pytest.param([0, 128, 255], np.int32, [0, 128, 255], id="32 bit holding 8"),
        pytest.param([0, 32896, 65535], np.int32, [0, 128, 255], id="32 bit holding 16"),
        pytest.param([0, 50_000, 100_000], np.int32, [0, 128, 255], id="32 bit"),
        pytest.param([-5, 0, 255], np.int32, [0, 0, 255], id="negative"),
        pytest.param([0.0, 0.5, 1.0], np.float32, [0, 128, 255], id="float 0..1"),
        pytest.param([0.0, 128.0, 255.0], np.float32, [0, 128, 255], id="float 0..255"),
        pytest.param([np.nan, np.inf, 1.0], np.float32, [0, 0, 255], id="not finite"),
        pytest.param([np.nan, -np.inf, np.nan], np.float32, [0, 0, 0], id="nothing finite"),
        pytest.param([0.0, 5e29, 1e30], np.float32, [0, 128, 255], id="huge"),
    ],
)
def test_deep_greys_are_scaled(values, dtype, expected):
    """16-bit, 32-bit and float greys keep their shades instead of turning white."""
    image = Image.fromarray(np.array([values], dtype))
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == expected


def test_deep_greys_keep_what_their_file_says():
    """EXIF data, which hold the orientation; not the transparent shade, of the old range."""
    image = Image.new("I;16", (3, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info = {"exif": exif.tobytes(), "transparency": 40_000}
    rgb = to_rgb(image)
    assert rgb.getexif()[0x0112] == 6
    assert rgb.info.keys() == {"exif"}


def test_transparent_pixels_keep_their_colour():
    """The colour under transparency is what the network sees, as in rembg."""
    image = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert to_rgb(image).getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize(
    ("size", "mean", "largest"),
    [
        ((512, 512), 1e-4, 1e-3),
        ((200, 300), 1e-4, 1e-3),
        ((319, 641), 1e-4, 1e-3),
        ((831, 700), 1e-4, 1e-3),
        # Reduced by whole factors first.
        ((1279, 1100), 0.7, 16),
        ((4000, 3000), 0.7, 16),
    ],
)
def test_parity_with_rembg(astronaut, size, mean, largest):
    """The input is rembg's own; of large pictures, to a fraction of a grey level on average."""
    base = pytest.importorskip("rembg.sessions.base").BaseSession

    class Named:
        name = "image"

    class WithoutNetwork(base):
        def __init__(self):
            self.inner_session = self

        def get_inputs(self):
            return [Named]

    image = astronaut.resize(size)
    theirs = WithoutNetwork().normalize(image, MEAN.tolist(), STD.tolist(), (SIZE, SIZE))["image"]
    difference = np.abs(normalize(reduced(image)) - theirs[0]) * STD[:, None, None] * 255
    assert difference.mean() < mean
    assert difference.max() < largest
