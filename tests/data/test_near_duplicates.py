"""Near-duplicates are found and kept together; splits stay where they were."""

from __future__ import annotations

import io
import random
from typing import cast

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from u2net_human_plugin.finetune.data.manifest import Split
from u2net_human_plugin.finetune.data.near_duplicates import (
    NEAR,
    Fingerprint,
    assign,
    groups,
    near_duplicates,
    perceptual_hashes,
)


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with large smooth structure, as photos have, unlike that of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


def fingerprint(name: str, alike: str = "", stated: Split | None = None) -> Fingerprint:
    """A fingerprint that looks like all others with the same ``alike``, and like no other."""
    bits = random.Random(alike or name).randbytes(32).hex()
    return Fingerprint(name, (bits, bits), stated)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((111, 83)),
        jpeg,
        ImageOps.mirror,
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: image.crop((3, 2, 318, 238)),
        ImageOps.grayscale,
    ],
    ids=["scaled", "compressed", "mirrored", "darker", "cropped by 1 %", "grey"],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_changed_copy_is_a_near_duplicate(change: object, seed: int) -> None:
    """What re-uploads and camera bursts do to a picture does not hide that it is the same."""
    image = scene(seed)
    changed = change(image).convert("RGB")  # type: ignore[operator]
    assert list(near_duplicates([perceptual_hashes(image), perceptual_hashes(changed)])) == [(0, 1)]


def test_other_pictures_are_not_near_duplicates() -> None:
    """None of 1225 pairs of unlike pictures is taken for one."""
    assert not list(near_duplicates([perceptual_hashes(scene(seed)) for seed in range(50)]))


def test_the_real_portrait_is_like_itself_only(astronaut: Image.Image) -> None:
    """A photo is near its mirror image and far from its own quarter turn."""
    hashes = [
        perceptual_hashes(image)
        for image in (astronaut, ImageOps.mirror(astronaut), astronaut.rotate(90))
    ]
    assert list(near_duplicates(hashes)) == [(0, 1)]


def test_flat_pictures_are_nobodys_duplicates() -> None:
    """A blank wall has no structure to compare, so two of them are not one scene."""
    blank = [perceptual_hashes(Image.new("RGB", (64, 64), colour)) for colour in ("black", "white")]
    assert blank == [(), ()]
    assert not list(near_duplicates(blank))


def test_all_pairs_are_compared_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocked matrix product finds exactly the pairs that bit counting finds."""
    monkeypatch.setattr("u2net_human_plugin.finetune.data.near_duplicates._BLOCK", 7)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (40, 256), np.uint8)
    for index in range(0, 40, 3):  # some are 0 … 70 flipped bits away from their neighbour
        bits[index] = bits[index - 1]
        bits[index, rng.permutation(256)[: 2 * index]] ^= 1
    text = [np.packbits(row).tobytes().hex() for row in bits]
    far = "0f" * 32
    expected = {
        (i, j)
        for i in range(40)
        for j in range(i + 1, 40)
        if int((bits[i] != bits[j]).sum()) <= NEAR
    }
    assert set(near_duplicates([(value, far) for value in text])) == expected
    assert len(expected) >= 5


def test_groups_are_transitive_and_join_equal_files() -> None:
    """If a is like b and b like c, all three are one group; equal files always are."""
    zero, half = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    full = np.zeros(256, np.uint8)
    half[:NEAR], full[: 2 * NEAR] = 1, 1
    chain = [np.packbits(bits).tobytes().hex() for bits in (zero, full, half)]
    prints = [Fingerprint(text[:4], (text, text)) for text in chain]
    prints = [Fingerprint(str(index), m.hashes) for index, m in enumerate(prints)]
    assert groups(prints) == [0, 0, 0]
    assert groups([prints[0], Fingerprint("x", ()), prints[1], Fingerprint("x", ())]) == [
        0,
        1,
        2,
        1,
    ]


def test_adding_pictures_moves_none() -> None:
    """A picture's split does not depend on which others there are, or on their order."""
    prints = [fingerprint(f"picture {index}") for index in range(400)]
    before = {m.sha256: a.split for m, a in zip(prints, assign(prints, 0.1, 0.2), strict=True)}
    more = [*(fingerprint(f"new {index}") for index in range(400)), *prints]
    random.Random(1).shuffle(more)
    after = {m.sha256: a.split for m, a in zip(more, assign(more, 0.1, 0.2), strict=True)}
    assert {name: after[name] for name in before} == before


def test_shares_are_as_asked() -> None:
    """Of 3000 pictures, val and test get their shares within three standard deviations."""
    splits = [place.split for place in assign([fingerprint(str(i)) for i in range(3000)], 0.1, 0.2)]
    assert splits.count("val") / 3000 == pytest.approx(0.1, abs=0.017)
    assert splits.count("test") / 3000 == pytest.approx(0.2, abs=0.022)


def test_a_larger_test_share_takes_from_train_alone() -> None:
    """Changing one share leaves test pictures in test and val pictures in val."""
    prints = [fingerprint(str(index)) for index in range(500)]
    small, large = assign(prints, 0.1, 0.1), assign(prints, 0.1, 0.3)
    for before, after in zip(small, large, strict=True):
        assert (before.split, after.split) in {
            ("train", "train"),
            ("train", "test"),
            ("test", "test"),
            ("val", "val"),
        }


def test_near_duplicates_share_a_split() -> None:
    """200 pairs, of which none is torn apart."""
    prints = [
        fingerprint(f"{index}{half}", f"scene {index}") for index in range(200) for half in "ab"
    ]
    splits = [place.split for place in assign(prints, 0.2, 0.2)]
    assert splits[0::2] == splits[1::2]
    assert set(splits) == {"train", "val", "test"}


def test_a_stated_split_stays_and_draws_its_near_duplicates_along() -> None:
    """New shots of a test scene become test; nothing of test ever becomes train."""
    for index in range(30):
        stated = fingerprint(f"old {index}", f"scene {index}", "test")
        places = assign([fingerprint(f"new {index}", f"scene {index}"), stated], 0.1, 0.1)
        assert [place.split for place in places] == ["test", "test"]
        assert [place.clashes_with for place in places] == [None, None]


@pytest.mark.parametrize(
    ("first", "second"), [("train", "test"), ("val", "test"), ("train", "val")]
)
def test_near_duplicates_stated_in_two_splits_clash(first: str, second: str) -> None:
    """The train side gives way, named with the picture it duplicates."""
    lower, higher = cast(Split, first), cast(Split, second)
    prints = [
        fingerprint("a", "scene", lower),
        fingerprint("other"),
        fingerprint("b", "scene", higher),
    ]
    places = assign(prints, 0.1, 0.1)
    assert [place.clashes_with for place in places] == [2, None, None]
    assert places[2].split == higher
