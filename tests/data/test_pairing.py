"""Which mask belongs to which picture, by people's habits of naming."""

from __future__ import annotations

from pathlib import Path

import pytest

from u2net_human_plugin.errors import DataError, OptionError
from u2net_human_plugin.finetune.data.sources import Origin, pairs


def listed(folder: Path, *names: str) -> Path:
    """A folder with files of these names; nobody opens them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(images: Path, masks: Path, template: str = "") -> dict[str, str]:
    """Each picture's mask, or its problem."""
    photos = pairs(images, masks, Origin("s"), template=template)
    return {c.image.name: c.mask.name if isinstance(c.mask, Path) else c.problem for c in photos}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x.jpg", "x.png"),
        ("x.jpg", "x_mask.png"),
        ("x.jpg", "x-mask.png"),
        ("x.jpg", "x.mask.png"),
        ("x.jpg", "x mask.png"),
        ("x.jpg", "x_gt.png"),
        ("x.jpg", "x_matte.png"),
        ("x.jpg", "x_alpha.png"),
        ("x.jpg", "x_pha.png"),
        ("x.jpg", "x_label.png"),
        ("x.jpg", "x_seg.png"),
        ("x.jpg", "x_segmentation.png"),
        ("x.jpg", "X_Mask.PNG"),
        ("IMG_1.JPG", "img_1.png"),
        ("x_image.jpg", "x_mask.png"),
        ("x-img.jpg", "x-matte.png"),
        ("image_7.jpg", "mask_7.png"),
        ("x.jpg", "mask_x.png"),
        ("x.jpg", "x.jpg.png"),
        ("sub/x.jpg", "sub/x_mask.png"),
        ("x_seg.jpg", "x_seg.png"),
    ],
)
@pytest.mark.parametrize("together", [False, True], ids=["two folders", "one folder"])
def test_habits_of_naming(image: str, mask: str, together: bool, tmp_path: Path) -> None:
    """A mask is found by its name, beside its picture or in a folder of its own."""
    if together and image == "IMG_1.JPG":
        pytest.skip("names that differ in case alone are of two pictures")
    images = listed(tmp_path / "a", image)
    masks = listed(tmp_path / ("a" if together else "b"), mask)
    assert found(images, masks) == {Path(image).name: Path(mask).name}


def test_case_matters_where_both_are_there(tmp_path: Path) -> None:
    """a.jpg and A.jpg have masks of their own."""
    images = listed(tmp_path / "a", "a.jpg", "A.jpg")
    if len(list(images.iterdir())) < 2:
        pytest.skip("the file system takes one name for the other")
    masks = listed(tmp_path / "b", "a.png", "A.png")
    assert found(images, masks) == {"a.jpg": "a.png", "A.jpg": "A.png"}


def test_a_mask_of_its_own_picture_is_no_other_ones(tmp_path: Path) -> None:
    """photo_seg.png belongs to photo_seg.jpg, not to photo.jpg."""
    images = listed(tmp_path / "a", "photo.jpg", "photo_seg.jpg")
    masks = listed(tmp_path / "b", "photo_mask.png", "photo_seg.png")
    assert found(images, masks) == {"photo.jpg": "photo_mask.png", "photo_seg.jpg": "photo_seg.png"}


def test_several_masks_are_too_many(tmp_path: Path) -> None:
    """They are named, with the option that chooses."""
    images = listed(tmp_path / "a", "x.jpg")
    masks = listed(tmp_path / "b", "x_alpha.png", "x_label.png")
    problem = found(images, masks)["x.jpg"]
    assert "several masks fit: x_alpha.png, x_label.png" in problem
    assert "--mask-name" in problem
    chosen = found(images, masks, "{stem}_label.png")
    assert chosen == {
        "x.jpg": "x_label.png",
        "x_alpha.png": f"a mask without a picture in {images}",
    }


def test_a_name_of_ones_own(tmp_path: Path) -> None:
    """--mask-name finds it; without, the error names the nearest file and that very option."""
    images = listed(tmp_path / "a", "sub/x.jpg", "y.jpg")
    masks = listed(tmp_path / "b", "sub/cut-x-out.png", "cut-y-out.png")
    with pytest.raises(DataError, match=r"cut-x-out\.png.*--mask-name 'cut-\{stem\}-out'"):
        found(images, masks)
    assert found(images, masks, "cut-{stem}-out") == {
        "x.jpg": "cut-x-out.png",
        "y.jpg": "cut-y-out.png",
    }
    with pytest.raises(OptionError, match=r"has no \{stem\}"):
        found(images, masks, "cut")


def test_one_picture_without_a_mask_names_the_nearest(tmp_path: Path) -> None:
    """The others are taken."""
    images = listed(tmp_path / "a", "x.jpg", "y.jpg")
    masks = listed(tmp_path / "b", "x.png", "y2.png")
    problems = found(images, masks)
    assert problems["x.jpg"] == "x.png"
    assert (
        "the nearest name is y2.png: if that is it, add --mask-name '{stem}2'" in problems["y.jpg"]
    )


def test_a_mask_of_another_picture_is_not_offered(tmp_path: Path) -> None:
    """Only masks without a picture are; if there are none, none is named."""
    images = listed(tmp_path / "a", "x1.jpg", "x2.jpg")
    masks = listed(tmp_path / "b", "x1.png")
    assert found(images, masks)["x2.jpg"] == f"no mask of this name in {masks}"
    listed(masks, "other.png")
    assert "the nearest name is other.png" in found(images, masks)["x2.jpg"]


@pytest.mark.parametrize(
    ("template", "hint", "end"),
    [
        ("", ": if that is it, add --mask-name '{stem}_foo'", ""),
        ("{stem}_bar", "", " by --mask-name '{stem}_bar'; correct it"),
    ],
    ids=["without", "with --mask-name"],
)
def test_no_mask_at_all(template: str, hint: str, end: str, tmp_path: Path) -> None:
    """The error says in one sentence what the first picture lacks, in another that all do."""
    images = listed(tmp_path / "i", "w0.jpg", "w1.jpg")
    masks = listed(tmp_path / "m", "w0_foo.png", "w1_foo.png")
    with pytest.raises(DataError) as raised:
        found(images, masks, template)
    assert str(raised.value) == (
        f"{images / 'w0.jpg'}: no mask of this name in {masks}; the nearest name is "
        f"w0_foo.png{hint}. No picture of {images} has a mask there{end}."
    )
