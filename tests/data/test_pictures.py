"""Every way in which a picture and its mask are stored gives the same picture and mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.data.manifest import Row
from u2net_human_plugin.finetune.data.pictures import SizeError, load_alpha, load_image, load_mask

#: The person of the test masks: (H,W) bool, not symmetric in any way.
PERSON = np.zeros((40, 60), bool)
PERSON[5:30, 10:25] = True
PERSON[20:30, 25:45] = True


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (*PERSON.shape, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def masks() -> dict[str, Image.Image]:
    binary = np.where(PERSON, 255, 0).astype(np.uint8)
    grey = Image.fromarray(binary)
    black = Image.new("RGB", grey.size)
    with_alpha = black.copy()
    with_alpha.putalpha(grey)
    opaque = grey.convert("RGB").convert("RGBA")
    classes = Image.fromarray(PERSON.astype(np.uint8)).convert("P")
    classes.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)
    inverted_palette = Image.fromarray((~PERSON).astype(np.uint8)).convert("P")
    inverted_palette.putpalette([255, 255, 255, 0, 0, 0] + [0] * 762)
    return {
        "1-bit": grey.convert("1"),
        "grey": grey,
        "labels 0 and 1": Image.fromarray(PERSON.astype(np.uint8)),
        "16-bit": Image.fromarray(binary.astype(np.uint16) * 257),
        "RGB": grey.convert("RGB"),
        "RGBA, black with the mask as alpha": with_alpha,
        "RGBA, opaque": opaque,
        "class labels in a colour palette": classes,
        "grey palette whose first colour is white": inverted_palette,
    }


@pytest.mark.parametrize("kind", masks())
def test_every_kind_of_mask_file_gives_the_same_mask(kind: str, picture: Path) -> None:
    """Bit depth, palette and channels do not matter: person is 255, the rest 0."""
    file = picture.with_name("mask.png")
    masks()[kind].save(file)
    mask = load_mask(Row(picture, file))
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), np.where(PERSON, 255, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_picture_and_mask(orientation: int, tmp_path: Path) -> None:
    """A picture stored turned comes back upright, whichever way its mask was drawn."""
    upright = Image.fromarray(np.where(PERSON, 255, 0).astype(np.uint8)).convert("RGB")
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "picture.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    stored.save(tmp_path / "stored.png")
    expected = np.asarray(upright.convert("L"))

    row = Row(tmp_path / "picture.png", tmp_path / "upright.png")
    np.testing.assert_array_equal(np.asarray(load_image(row).convert("L")), expected)
    np.testing.assert_array_equal(np.asarray(load_mask(row)), expected)
    if stored.size != upright.size:
        row = Row(tmp_path / "picture.png", tmp_path / "stored.png")
        np.testing.assert_array_equal(np.asarray(load_mask(row)), expected)


def test_the_alpha_channel_is_the_mask_where_the_row_says_so(tmp_path: Path) -> None:
    """Soft alpha comes back soft from load_alpha and binary at one half from load_mask."""
    alpha = np.linspace(0, 255, 256).astype(np.uint8)[None].repeat(4, axis=0)
    cutout = Image.new("RGB", (256, 4), "red")
    cutout.putalpha(Image.fromarray(alpha))
    cutout.save(tmp_path / "cutout.png")
    row = Row(tmp_path / "cutout.png", "alpha")
    np.testing.assert_array_equal(np.asarray(load_alpha(row)), alpha)
    np.testing.assert_array_equal(np.asarray(load_mask(row)), np.where(alpha >= 128, 255, 0))


def test_an_empty_scene_has_an_empty_mask_of_its_size(picture: Path) -> None:
    """`"mask": null` stands for a scene with nobody in it."""
    mask = load_mask(Row(picture, None))
    assert (mask.size, mask.getbbox()) == ((60, 40), None)


def test_a_mask_of_another_size_is_refused_by_name(picture: Path) -> None:
    """The error names the picture, the mask and both sizes."""
    file = picture.with_name("mask.png")
    Image.new("L", (61, 40)).save(file)
    with pytest.raises(SizeError, match=r"picture\.png.*mask\.png.*61x40.*60x40"):
        load_mask(Row(picture, file))


def test_alpha_asked_of_an_opaque_picture_is_refused(picture: Path) -> None:
    """Rather than an all-foreground mask."""
    with pytest.raises(DataError, match=r"picture\.png.*no alpha channel"):
        load_mask(Row(picture, "alpha"))


@pytest.mark.parametrize("content", [b"", b"not a picture", None], ids=["empty", "text", "cut"])
def test_an_unreadable_picture_is_named(content: bytes | None, picture: Path) -> None:
    """Truncated and foreign files raise the project's own error with the file's name."""
    picture.write_bytes(picture.read_bytes()[:1500] if content is None else content)
    with pytest.raises(DataError, match=r"picture\.png: cannot be read as a picture"):
        load_image(Row(picture, None))
