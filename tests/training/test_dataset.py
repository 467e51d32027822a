"""Training pictures: what is drawn, composed and left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from u2net_human_plugin.finetune.data.manifest import Row, read_manifest
from u2net_human_plugin.finetune.training.composition import beside_people
from u2net_human_plugin.finetune.training.dataset import Material, Mix, PeopleDataset


def test_picture_depends_only_on_seed_and_number(data: Path) -> None:
    """Any process, and any resumed run, sees the same sequence of pictures."""
    material = Material(read_manifest(data))
    one, other = PeopleDataset(material, size=64), PeopleDataset(material, size=64)
    for number in (0, 5, 17):
        torch.manual_seed(number)  # what happened before must not matter
        for key, value in one[number].items():
            assert torch.equal(value, other[number][key])
    assert not torch.equal(one[1]["image"], one[2]["image"])


def test_every_photo_comes_up_once_a_pass(data: Path) -> None:
    """A pass over the photos is a permutation of them."""
    material = Material(read_manifest(data))
    dataset = PeopleDataset(material, mix=Mix(1, 0, 0, 0))
    count = len(material.photos)
    seen = {dataset.sample(number).image.tobytes() for number in range(count)}
    assert len(seen) == count


def test_composites_hold_as_many_people_as_they_say(data: Path) -> None:
    """A composite's alpha is not empty, an empty scene's is."""
    material = Material(read_manifest(data))
    scenes = PeopleDataset(material, mix=Mix(0, 0, 1, 0))
    for number in range(12):
        sample = scenes.sample(number)
        assert 1 <= sample.persons <= 5
        assert sample.alpha.getextrema()[1] > 200
        assert sample.image.size == sample.alpha.size == sample.weight.size
    empty = PeopleDataset(material, mix=Mix(0, 0, 0, 1))
    for number in range(12):
        sample = empty.sample(number)
        assert sample.persons == 0
        assert sample.alpha.getextrema() == (0, 0)


def test_things_are_pasted_and_are_nobody(data: Path, tmp_path: Path) -> None:
    """A pink disc appears in empty scenes and beside people; alpha leaves it out."""
    disc = Image.new("RGBA", (150, 150), (255, 0, 255, 0))
    ImageDraw.Draw(disc).ellipse((5, 5, 145, 145), fill=(255, 0, 255, 255))
    disc.save(tmp_path / "disc.png")
    thing = Row(tmp_path / "disc.png", None, "made", "train", "CC0-1.0", {"thing": True})
    material = Material([*read_manifest(data), thing])
    assert material.distractors == [thing]
    assert thing not in material.scenes
    for mix in (Mix(0, 0, 0, 1), Mix(0, 0, 1, 0)):
        dataset = PeopleDataset(material, mix=mix)
        found = 0
        for number in range(24):
            sample = dataset.sample(number)
            red, green, blue = np.moveaxis(np.asarray(sample.image).astype(int), 2, 0)
            pink = (red > 140) & (blue > 140) & (green < 40)
            # A shape cut from noise has a pink pixel here and there.
            if pink.sum() > 300:
                found += 1
                assert np.asarray(sample.alpha)[pink].mean() < 13
        assert found >= 4


def test_unlabelled_people_and_coarse_contours_do_not_count(data: Path) -> None:
    """Weight 0 in person boxes that the mask leaves bare, and near a coarse mask's contour."""
    rows = read_manifest(data)
    row = next(row for row in rows if row.mask is not None)
    bare = [0.0, 150.0, 15.0, 200.0, 0.9]
    flagged = type(row)(
        row.image,
        row.mask,
        row.source,
        row.split,
        row.licence,
        {"boxes": [bare], "detector": "yolo"},
    )
    material = Material([flagged], coarse={"made": 3})
    dataset = PeopleDataset(material, mix=Mix(1, 0, 0, 0))
    sample = dataset.sample(0)
    weight, alpha = np.asarray(sample.weight), np.asarray(sample.alpha)
    assert (weight[150:200, 0:15] == 0).all()
    assert weight[0, 159] == 255
    change = np.diff(alpha.astype(int), axis=1) != 0
    assert change.any()
    assert (weight[:, 1:][change] == 0).all()
    assert weight[alpha == 255].max() == 255


def street(boxes: list[list[float]], width: int = 240) -> Image.Image | None:
    """What is beside a green person, 40 wide, between a red and a blue half."""
    photo = Image.new("RGB", (width, 60), (255, 0, 0))
    left = (width - 40) // 2
    photo.paste((0, 0, 255), (left, 0, width, 60))
    mask = Image.new("L", photo.size)
    mask.paste(255, (left, 10, left + 40, 60))
    photo.paste((0, 255, 0), (0, 0), mask)
    return beside_people(photo, mask, np.array(boxes, np.float32).reshape(-1, 4))


def test_scene_from_beside_a_person_shows_nothing_of_them() -> None:
    """The halves left and right of the person, joined; their own detector box is no obstacle."""
    scene = street([[95, 5, 150, 60]])
    assert scene is not None
    pixels = np.asarray(scene)
    assert pixels.shape[0] == 60
    assert pixels.shape[1] < 200
    assert pixels[..., 1].max() == 0
    assert (pixels[:, :80] == (255, 0, 0)).all()
    assert (pixels[:, -80:] == (0, 0, 255)).all()


def test_no_scene_from_beside_others_or_in_too_little_room() -> None:
    """A second person, a narrow photo, and a mask without anybody give no scene."""
    assert street([[100, 10, 140, 60], [200, 10, 230, 60]]) is None
    assert street([], width=200) is None
    photo = Image.new("RGB", (300, 300))
    assert beside_people(photo, Image.new("L", photo.size), np.zeros((0, 4), np.float32)) is None
