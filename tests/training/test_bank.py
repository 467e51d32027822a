"""Decoded pictures: what the bank holds of a file, and when it reads the files again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.data.manifest import Row
from u2net_human_plugin.finetune.training import bank as banks
from u2net_human_plugin.finetune.training.bank import decode
from u2net_human_plugin.finetune.training.dataset import Material
from u2net_human_plugin.finetune.training.training_rows import TrainingRow, training_rows

SIDE = 32


@pytest.fixture
def row(tmp_path: Path) -> Row:
    """A red person in the left half of a blue picture, twice as wide as high."""
    image, mask = Image.new("RGB", (64, 32), (0, 0, 255)), Image.new("L", (64, 32))
    image.paste((255, 0, 0), (0, 0, 32, 32))
    mask.paste(255, (0, 0, 32, 32))
    image.save(tmp_path / "a.png")
    mask.save(tmp_path / "m.png")
    return Row(tmp_path / "a.png", tmp_path / "m.png", "made", "train", "CC0-1.0")


def grey(folder: Path, name: str, value: int, size: tuple[int, int] = (16, 16)) -> Path:
    Image.new("L", size, value).save(folder / name)
    return folder / name


def test_a_photo_is_kept_as_a_square(row: Row, tmp_path: Path) -> None:
    """Colours, mask, proportions and hull are those of the file; all of it counts."""
    bank = decode([TrainingRow.of(row, "photo", 0.5)], SIDE, tmp_path / "bank")
    rgb, alpha = bank.planes["rgb"][0], bank.planes["alpha"][0, 0]
    assert bank.side == SIDE
    assert rgb[:, 16, 4].tolist() == [255, 0, 0]
    assert rgb[:, 16, 28].tolist() == [0, 0, 255]
    assert (alpha[:, :16] == 255).all()
    assert (alpha[:, 16:] == 0).all()
    assert (bank.planes["weight"] == 255).all()
    assert bank.aspect.tolist() == [2]
    assert bank.box_xyxy.tolist() == [[0, 0, 0.5, 1]]
    assert bank.share.tolist() == [0.5]
    assert bank.pool("photo").tolist() == [0]
    assert not len(bank.pool("scene"))
    assert not len(bank.distractors)


def test_pictures_are_turned_upright(row: Row, tmp_path: Path) -> None:
    """With EXIF's orientation, of picture and mask alike."""
    exif = Image.Exif()
    exif[274] = 3  # upside down
    with Image.open(row.image) as image:
        image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    with Image.open(row.mask) as mask:  # type: ignore[arg-type]
        mask.rotate(180).save(tmp_path / "upright.png")
    turned = replace(row, image=tmp_path / "turned.jpg", mask=tmp_path / "upright.png")
    bank = decode([TrainingRow.of(turned, "photo")], SIDE, tmp_path / "bank")
    assert bank.planes["rgb"][0, 0, 16, 28] > 200
    assert bank.planes["alpha"][0, 0, 16, 28] == 255


def test_cut_outs_keep_their_soft_edge_and_no_colour_of_the_old_background(tmp_path: Path) -> None:
    """Alpha is the picture's own; white that is fully transparent does not bleed in."""
    pixels = np.full((48, 48, 4), 255, np.uint8)
    pixels[:, :24] = (200, 0, 0, 255)
    pixels[:, 24:, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "c.png")
    row = Row(tmp_path / "c.png", "alpha")
    bank = decode([TrainingRow.of(row, "cutout")], SIDE, tmp_path / "bank")
    alpha, rgb = bank.planes["alpha"][0, 0], bank.planes["rgb"][0]
    assert alpha[0, 0] == 255
    assert alpha[0, -1] == 0
    assert rgb[1:, alpha > 30].max() <= 3


def test_around_a_coarse_contour_nothing_counts_or_the_teacher_does(
    row: Row, tmp_path: Path
) -> None:
    """Within the band of the mask; beyond it, the mask alone."""
    one = decode([TrainingRow.of(row, "photo", band=4)], SIDE, tmp_path / "one")
    weight = one.planes["weight"][0, 0]
    assert (weight[:, 15:17] == 0).all()
    assert (weight[:, :12] == 255).all()
    assert (weight[:, 20:] == 255).all()

    teacher = grey(tmp_path, "t.png", 100)
    taught = replace(row, teacher=teacher, teacher_weight=grey(tmp_path, "w.png", 50))
    other = decode([TrainingRow.of(taught, "photo", band=4)], SIDE, tmp_path / "other")
    alpha, weight = other.planes["alpha"][0, 0], other.planes["weight"][0, 0]
    assert (alpha[:, 15:17] == 100).all()
    assert (weight[:, 15:17] == 50).all()
    assert (alpha[:, :12] == 255).all()
    assert (alpha[:, 20:] == 0).all()
    assert (weight[:, 20:] == 255).all()
    # A mask that is to be trusted needs no teacher.
    plain = decode([TrainingRow.of(taught, "photo")], SIDE, tmp_path / "plain")
    assert set(plain.planes["alpha"].unique().tolist()) == {0, 255}


def test_a_photo_without_a_mask_learns_from_its_teacher(row: Row, tmp_path: Path) -> None:
    """Weighted by agreement; nothing counts in the box of somebody whom the teacher leaves out."""
    weight = grey(tmp_path, "w.png", 200)
    teacher = tmp_path / "t.png"
    half = Image.new("L", (16, 16), 60)
    half.paste(200, (0, 0, 8, 16))
    half.save(teacher)
    taught = replace(
        row,
        mask=None,
        teacher=teacher,
        teacher_weight=weight,
        extra={"boxes": [[48, 0, 64, 32, 0.9]], "detector": "yolo"},
    )
    (one,) = training_rows([taught], {})
    assert one.kind == "photo"
    planes = decode([one], SIDE, tmp_path / "bank").planes
    assert (planes["alpha"][..., :14] == 200).all()
    assert (planes["alpha"][..., 18:] == 60).all()
    assert (planes["weight"][..., :23] == 200).all()
    assert (planes["weight"][..., 25:] == 0).all()


def test_whom_a_mask_leaves_out_does_not_count(row: Row, tmp_path: Path) -> None:
    """Boxes of a detector; or, if `complete` looked, the trimap: 128 unknown, 255 a person."""
    seen = replace(row, extra={"boxes": [[40, 0, 56, 32, 0.9]], "detector": "yolo"})
    trimap = Image.new("L", (64, 32))
    trimap.paste(128, (40, 0, 48, 32))
    trimap.paste(255, (48, 0, 56, 32))
    trimap.save(tmp_path / "trimap.png")
    drawn = replace(seen, bystanders=tmp_path / "trimap.png")
    chosen = [TrainingRow.of(each, "photo") for each in (seen, drawn)]
    bank = decode(chosen, SIDE, tmp_path / "bank")
    alpha, weight = bank.planes["alpha"][:, 0], bank.planes["weight"][:, 0]
    assert (weight[0, :, 20:28] == 0).all()
    assert (weight[0, :, :19] == 255).all()
    assert (alpha[0, :, 16:] == 0).all()
    assert (weight[1, :, 20:24] == 0).all()
    assert (weight[1, :, 24:28] == 255).all()
    assert (alpha[1, :, 24:28] == 255).all()


def test_rows_are_what_they_can_teach(row: Row, tmp_path: Path) -> None:
    """Photos, scenes, cut-outs, things; a scene with somebody in it is nothing."""
    scene = replace(row, mask=None)
    taken = replace(scene, extra={"flags": ["unlabelled_person"]})
    thing = replace(scene, extra={"thing": True})
    with_thing = replace(scene, distractor_mask=grey(tmp_path, "thing.png", 255))
    rows = [row, scene, taken, replace(row, mask="alpha"), thing, with_thing]
    chosen = training_rows(rows, {"made": 3})
    assert [one.kind for one in chosen] == ["photo", "scene", "cutout", "distractor", "scene"]
    assert [one.has_distractor for one in chosen] == [False, False, False, True, True]
    assert {one.band for one in chosen} == {3}
    assert {one.share for one in chosen} == {0.2}  # all alike, also where kinds are mixed
    with pytest.raises(DataError, match="no picture with a mask"):
        training_rows([scene], {})


def test_a_teacher_that_sees_nobody_leaves_a_scene(row: Row, tmp_path: Path) -> None:
    """And one that sees somebody where a detector has looked in vain is not believed."""
    photo = replace(row, mask=None)
    haze, sure = grey(tmp_path, "haze.png", 100), grey(tmp_path, "sure.png", 250)
    searched = {"boxes": [], "detector": "yolo"}
    rows = [
        row,
        replace(photo, teacher=haze),
        replace(photo, teacher=sure),
        replace(photo, teacher=sure, extra=searched),
        replace(photo, teacher=sure, extra={**searched, "flags": ["unlabelled_person"]}),
    ]
    kinds = [one.kind for one in training_rows(rows, {})]
    assert kinds == ["photo", "scene", "photo", "scene", "photo"]
    assert Material(rows).scenes == [rows[1], rows[3]]


def test_sources_get_the_share_they_are_promised(row: Row) -> None:
    """The rest goes to the others, by their number; an unknown source is an error."""
    rows = [replace(row, source=name) for name in ("a", "a", "b", "c", "c", "c")]
    shares = [one.share for one in training_rows(rows, {}, {"a": 0.5})]
    np.testing.assert_allclose(shares, [0.25, 0.25, *[0.125] * 4])
    with pytest.raises(DataError, match=r"the source 'd'; the manifest has a, b, c"):
        training_rows(rows, {}, {"d": 0.5})


def test_arrays_are_decoded_once_and_again_when_a_file_changes(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pictures are found again; a changed mask, another band or side are others."""
    calls = []
    original = banks.decoded
    monkeypatch.setattr(banks, "decoded", lambda *a: calls.append(a) or original(*a))
    folder, one = tmp_path / "bank", TrainingRow.of(row, "photo")
    first = decode([one], SIDE, folder)
    first.planes["alpha"][0] = 7  # a bank that is used cannot spoil what is kept
    assert (decode([one], SIDE, folder).planes["alpha"][0, 0, :, :16] == 255).all()
    assert len(calls) == 1
    decode([one, one], SIDE, folder)
    decode([one], 2 * SIDE, folder)
    decode([replace(one, band=2)], SIDE, folder)
    assert len(calls) == 5
    Image.new("L", (64, 32), 255).save(row.mask)  # type: ignore[arg-type]
    os.utime(row.mask, ns=(1, 1))  # type: ignore[arg-type]
    assert (decode([one], SIDE, folder).planes["alpha"] == 255).all()
    assert len(calls) == 6


def test_what_a_killed_run_left_is_not_used(row: Row, tmp_path: Path) -> None:
    """Half-written arrays, of these pictures or of others, are made anew."""
    folder, one = tmp_path / "bank", TrainingRow.of(row, "photo")
    place = decode([one], SIDE, folder).folder
    place.rename(f"{place}.tmp")
    (folder / f"{place.name}.tmp" / "bank.json").unlink()
    for array in (folder / f"{place.name}.tmp").glob("*.npy"):
        array.write_bytes(array.read_bytes()[:200])
    assert (decode([one], SIDE, folder).planes["alpha"][0, 0, :, :16] == 255).all()
    assert [path.name for path in folder.iterdir() if path.is_dir()] == [place.name]


def test_all_unusable_files_are_named_at_once(row: Row, tmp_path: Path) -> None:
    """A damaged picture and a mask of another size; nothing is left behind."""
    (tmp_path / "broken.png").write_bytes(row.image.read_bytes()[:60])
    broken = replace(row, image=tmp_path / "broken.png", where="manifest.jsonl:2")
    other = replace(row, mask=grey(tmp_path, "small.png", 255))
    chosen = [TrainingRow.of(each, "photo") for each in (row, broken, other)]
    with pytest.raises(DataError) as caught:
        decode(chosen, SIDE, tmp_path / "bank")
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"manifest.jsonl:2: {tmp_path / 'broken.png'}: cannot be read")
    assert "the mask is 16x16 pixels, the picture 64x32" in second
    assert [path.name for path in (tmp_path / "bank").iterdir() if path.is_dir()] == []


def test_a_full_disk_is_said_before_anything_is_written(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing into a mapped file on a full disk would kill the process."""
    monkeypatch.setattr(banks.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"1 pictures of 32x32 take .* --cache"):
        decode([TrainingRow.of(row, "photo")], SIDE, tmp_path / "bank")


def test_a_bank_is_where_its_batches_are(row: Row, tmp_path: Path) -> None:
    """On the CPU the planes stay mapped files."""
    bank = decode([TrainingRow.of(row, "photo")], SIDE, tmp_path / "bank").on(torch.device("cpu"))
    assert bank.planes["rgb"].device.type == "cpu"
