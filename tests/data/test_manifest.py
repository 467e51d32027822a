"""Manifests, and every way in which a picture and its mask are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.data.manifest import (
    Row,
    SizeError,
    load_alpha,
    load_image,
    load_mask,
    read_manifest,
    write_manifest,
)
from u2net_human_plugin.finetune.files import written_atomically

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


def test_a_written_manifest_reads_back_the_same(picture: Path, tmp_path: Path) -> None:
    """All kinds of rows survive, with further keys, from another folder than the files'."""
    (tmp_path / "sub").mkdir()
    rows = [
        Row(picture, picture.with_name("m.png"), "studio", "test", "CC0-1.0", {"group": "ab"}),
        Row(picture, "alpha", "studio", "train", "", {}),
        Row(picture, None, "", None, "", {"boxes": [[1.0, 2.0, 3.0, 4.0, 0.5]]}),
    ]
    manifest = tmp_path / "sub" / "manifest.jsonl"
    write_manifest(manifest, rows)
    assert str(tmp_path) not in manifest.read_text("utf-8")
    found = read_manifest(manifest.parent, check_files=False)
    resolved = [
        (row.image.resolve(), row.mask.resolve() if isinstance(row.mask, Path) else row.mask)
        for row in found
    ]
    assert resolved == [(row.image, row.mask) for row in rows]
    assert [(r.source, r.split, r.licence, r.extra) for r in found] == [
        (r.source, r.split, r.licence, r.extra) for r in rows
    ]


@pytest.mark.parametrize("name", ["a\u2028b\u2029c\x85d.png", "caf\udce9.png", "schön ☃.png"])
def test_any_file_name_survives(name: str, tmp_path: Path) -> None:
    """Line ends that are none of JSON's, and what is no UTF-8; the rest stays legible."""
    manifest = tmp_path / "manifest.jsonl"
    write_manifest(manifest, [Row(tmp_path / name, None), Row(tmp_path / "b.png", None)])
    first, second = read_manifest(manifest, check_files=False)
    assert (first.image.name, second.image.name) == (name, "b.png")
    assert second.where.endswith(":2")
    assert ("schön ☃.png" in manifest.read_text("utf-8")) == name.startswith("schön")


def test_lines_may_end_as_on_windows(picture: Path) -> None:
    """With carriage returns, blank lines or none at the end."""
    manifest = picture.with_name("manifest.jsonl")
    line = json.dumps({"image": "picture.png", "mask": None}).encode()
    manifest.write_bytes(line + b"\r\n\r\n" + line)
    assert [row.where[-2:] for row in read_manifest(manifest)] == [":1", ":3"]


@pytest.mark.parametrize(
    ("extra", "searched"),
    [
        pytest.param({}, False, id="no boxes"),
        pytest.param({"boxes": [[1, 2, 3, 4, 0.5]]}, False, id="of whom is not said"),
        pytest.param({"boxes": [[1, 2, 3, 4, 0.5]], "detector": "yolo"}, True, id="a detector's"),
        pytest.param({"boxes": [[1, 2, 3, 4, 1.0]], "detector": None}, False, id="a mask's"),
    ],
)
def test_only_a_detector_tells_where_everybody_is(extra: dict[str, Any], searched: bool) -> None:
    """Boxes that a mask's own regions gave say nothing of whom it leaves out."""
    row = Row(Path("a.png"), Path("m.png"), extra=extra)
    assert row.was_searched == searched
    assert row.boxes_xyxy.tolist() == ([[1, 2, 3, 4]] if searched else [])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"mask": null}', '"image" is missing'),
        ('{"image": "a.png"}', '"mask" is missing'),
        ('{"image": null, "mask": null}', '"image" is None'),
        ('{"image": "a.png", "mask": 3}', '"mask" is 3'),
        ('{"image": "picture.png", "mask": null, "split": "training"}', "'training'.*train, val"),
        ('{"image": "missing.png", "mask": null}', r"missing\.png does not exist"),
        ('{"image": "picture.png", "mask": "gone.png"}', r"gone\.png does not exist"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(line: str, says: str, picture: Path) -> None:
    """Every error says file, line and what is wrong there."""
    good = json.dumps({"image": "picture.png", "mask": None})
    manifest = picture.with_name("manifest.jsonl")
    manifest.write_text(f"{good}\n\n{line}\n", "utf-8")
    with pytest.raises(DataError, match=rf"(?s)manifest\.jsonl:3.*{says}"):
        read_manifest(manifest)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """An interrupted write is not seen by anyone."""
    file = tmp_path / "file"
    file.write_text("old")

    def fail() -> None:
        with written_atomically(file) as temporary:
            temporary.write_text("half of the new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
