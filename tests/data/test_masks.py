"""What a mask's values mean: grey, labels, classes of PASCAL VOC, dark for bright."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import PERSON, Prepare, drawn, photo, report, save
from PIL import Image, ImageFilter

from u2net_human_plugin.errors import DataError, OptionError
from u2net_human_plugin.finetune.data import sources
from u2net_human_plugin.finetune.data.collection import collect
from u2net_human_plugin.finetune.data.complete import open_elsewhere
from u2net_human_plugin.finetune.data.doubts import is_inverted
from u2net_human_plugin.finetune.data.manifest import read_manifest
from u2net_human_plugin.finetune.data.masks import BRIGHT, Reading, parse_classes, to_grey
from u2net_human_plugin.finetune.data.pictures import load_alpha, load_mask
from u2net_human_plugin.finetune.data.plan import Plan
from u2net_human_plugin.finetune.data.report import doubtful_sources
from u2net_human_plugin.finetune.data.writer import WriteOptions

Values = np.ndarray[Any, np.dtype[np.uint8]]


#: Photos stay whole, and there are no cut-outs.
AS_THEY_ARE = WriteOptions(crop=False, cutouts="none")


def palette(values: Values) -> Image.Image:
    """A picture of indices, coloured as PASCAL VOC colours them: 1 dark red, 2 dark green."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        for bit in range(8):
            for channel in range(3):
                colours[index, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    image = Image.fromarray(values).convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    return image


@pytest.fixture
def voc() -> Values:
    """A person (15) and a sofa (18), each with a border of 255 around it."""
    values = np.zeros((320, 240), np.uint8)
    values[40:300, 40:140] = 255
    values[45:295, 45:135] = 15
    values[100:200, 150:230] = 255
    values[105:195, 155:225] = 18
    return values


@pytest.mark.parametrize("grey", [False, True], ids=["palette", "grey"])
def test_classes_of_pascal_voc(grey: bool, voc: Values, prepare: Prepare, tmp_path: Path) -> None:
    """--person-value 15: the sofa is nobody, and the borders do not count, to `train` either."""
    save(photo(1), tmp_path / "images/a.jpg")
    save(Image.fromarray(voc) if grey else palette(voc), tmp_path / "masks/a.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    prepare(*folders, "--person-value", 15, "--whole", "--out", tmp_path / "out")
    prepare("--manifest", tmp_path / "out", "--whole", "--out", tmp_path / "again")
    for out in ("out", "again"):
        (row,) = read_manifest(tmp_path / out)
        np.testing.assert_array_equal(np.asarray(load_mask(row)) == 255, voc == 15)
        assert row.bystanders is not None
        trimap = np.asarray(Image.open(row.bystanders))
        np.testing.assert_array_equal(trimap, np.where(voc == 255, 128, 0))
        assert report(tmp_path / out)["unreferenced"] == []


def test_what_does_not_count_is_cropped_with_the_picture(
    voc: Values, prepare: Prepare, tmp_path: Path
) -> None:
    """A crop's trimap lies over the crop."""
    wide = np.zeros((320, 1000), np.uint8)
    wide[:, :240] = voc
    save(photo(1, (1000, 320)), tmp_path / "images/a.png")
    save(palette(wide), tmp_path / "masks/a.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    prepare(*folders, "--person-value", 15, "--margin", 0.2, "--out", tmp_path / "out")
    (row,) = read_manifest(tmp_path / "out")
    assert row.bystanders is not None
    mask, trimap = np.asarray(load_mask(row)), np.asarray(Image.open(row.bystanders))
    assert mask.shape == trimap.shape != wide.shape
    left, top = (wide.shape[1] - 1, 0)
    top, left = (int(np.flatnonzero((mask > 0).any(axis=axis))[0]) for axis in (1, 0))
    assert trimap[top - 1, left] == trimap[top, left - 1] == 128
    assert trimap[top, left] == 0


def test_people_who_are_left_out_stay_unknown_beside_the_borders(
    voc: Values, tmp_path: Path
) -> None:
    """A trimap says all there is to say of them: the detector's boxes are in it."""
    save(photo(1), tmp_path / "images/a.png")
    save(palette(voc), tmp_path / "masks/a.png")
    boxes = np.array([(40, 40, 140, 300), (150, 210, 230, 310)], np.float32)
    reading = Reading(frozenset([15]))
    origin = sources.Origin("s")
    photos = list(sources.pairs(tmp_path / "images", tmp_path / "masks", origin, reading))
    plan = Plan(
        WriteOptions(crop=False, cutouts="none"), lambda _: (boxes, np.full(2, 0.9, np.float32))
    )
    (row,) = collect(photos, tmp_path / "out", plan, quiet=True).rows
    assert row.bystanders is not None
    trimap = np.asarray(Image.open(row.bystanders))
    assert trimap[250, 200] == 128
    assert trimap[42, 42] == 128
    assert trimap[150, 90] == 0


def test_a_set_of_classes_has_pictures_of_nobody(
    voc: Values, prepare: Prepare, tmp_path: Path
) -> None:
    """Where the person's value is absent nobody is there, as in COCO's JSON."""
    save(photo(1), tmp_path / "images/a.png")
    save(palette(np.where(voc == 15, 0, voc).astype(np.uint8)), tmp_path / "masks/a.png")
    save(photo(2), tmp_path / "images/b.png")
    save(palette(voc), tmp_path / "masks/b.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    prepare(*folders, "--person-value", 15, "--whole", "--out", tmp_path / "out")
    assert [row.mask is None for row in read_manifest(tmp_path / "out")] == [True, False]


def test_a_class_of_no_mask_ends_the_run(prepare: Prepare, tmp_path: Path) -> None:
    """Else every picture would become an empty scene; what is there to choose from is named."""
    for name, value in (("a", 1), ("b", 2)):
        save(photo(value), tmp_path / f"images/{name}.png")
        mask = drawn(PERSON).point(lambda level, value=value: value if level else 0)
        save(mask, tmp_path / f"masks/{name}.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    for given, said in (((7,), "7"), ((7, "4-5"), "4, 5 or 7")):
        named = [text for value in given for text in ("--person-value", value)]
        result = prepare(*folders, *named, "--out", tmp_path / "out", code=2)
        wanted = f"no mask of {tmp_path / 'masks'} holds the value {said}; they hold 0, 1 and 2"
        assert wanted in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("grey", [False, True], ids=["palette", "grey"])
def test_classes_are_not_guessed(grey: bool, voc: Values, prepare: Prepare, tmp_path: Path) -> None:
    """Several classes are set aside, and the reason names them and the option."""
    save(photo(1), tmp_path / "images/a.jpg")
    save(Image.fromarray(voc) if grey else palette(voc), tmp_path / "masks/a.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    prepare(*folders, "--out", tmp_path / "out", code=1)
    (aside,) = report(tmp_path / "out")["aside"]
    kind = "grey levels look like classes; they are 0," if grey else "palette's classes are"
    assert f"a.png: its {kind} 15, 18, 255; `prepare` wants" in aside["detail"]
    assert "--person-value 15" in aside["detail"]
    with pytest.raises(DataError, match=r"x: is coloured"):
        Reading(frozenset([15])).mask(palette(voc).convert("RGB"), "x")


@pytest.mark.parametrize(
    ("values", "person"),
    [((0, 1), 1), ((1, 2), 2), ((0, 2), 2), ((0, 255), 255), ((0, 200), 200)],
    ids=str,
)
def test_two_values_are_nobody_and_a_person(values: tuple[int, int], person: int) -> None:
    """Also the dark ones 1 and 2, which no eye tells apart."""
    drawn = np.full((6, 8), values[0], np.uint8)
    drawn[2:4, 3:6] = values[1]
    read = np.asarray(to_grey(Image.fromarray(drawn), "x"))
    np.testing.assert_array_equal(read >= 128, drawn == person)


def test_an_empty_mask_with_values_says_which(prepare: Prepare, tmp_path: Path) -> None:
    """Three dark values may be classes: the reason names the option."""
    values = np.zeros((320, 240), np.uint8)
    values[40:, 40:90], values[40:, 100:150] = 4, 7
    save(photo(1), tmp_path / "images/a.jpg")
    save(Image.fromarray(values), tmp_path / "masks/a.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    prepare(*folders, "--out", tmp_path / "out", code=1)
    (aside,) = report(tmp_path / "out")["aside"]
    assert aside["reason"] == "empty mask"
    assert "end at 7 of 255: if that is a class, --person-value" in aside["detail"]


def test_colours_are_no_mask(voc: Values, prepare: Prepare, tmp_path: Path) -> None:
    """Classes drawn in colours are set aside; grey saved as RGB is read, with a little tint."""
    tinted = np.repeat(np.asarray(drawn(PERSON))[..., None], 3, axis=2)
    tinted[..., 1] ^= 3
    masks = {
        "colours": palette(voc).convert("RGB"),
        "tinted": Image.fromarray(tinted),
        "jpeg": as_jpeg(Image.fromarray(tinted), 75).convert("RGB"),
        "grey": drawn(PERSON).convert("RGB"),
    }
    for seed, (name, mask) in enumerate(masks.items()):
        save(photo(seed), tmp_path / f"images/{name}.png")
        save(mask, tmp_path / f"masks/{name}.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    prepare(*folders, "--whole", "--out", tmp_path / "out")
    (aside,) = report(tmp_path / "out")["aside"]
    assert "colours.png: is coloured" in aside["detail"]
    assert "--person-value" in aside["detail"]
    for row in read_manifest(tmp_path / "out"):
        assert np.mean(np.asarray(load_mask(row)) != np.asarray(drawn(PERSON))) < 0.001


def smoothed(factor: int) -> Image.Image:
    """A mask drawn larger and made smaller: the levels of its edges are few, and some are dark."""
    large = drawn((20, 30, 200, 290), size=(240 * factor, 320 * factor))
    large.paste(255, (31, 301, 31 + 50 * factor, 301 + 20 * factor))
    return large.resize((240, 320), Image.Resampling.BOX)


def as_jpeg(mask: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    mask.save(file, "JPEG", quality=quality)
    return Image.open(file)


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(smoothed(3), id="smoothed, 3x3"),
        pytest.param(smoothed(4), id="smoothed, 4x4"),
        pytest.param(drawn(PERSON).filter(ImageFilter.GaussianBlur(9)), id="soft"),
        pytest.param(Image.linear_gradient("L"), id="every level"),
        *(
            pytest.param(as_jpeg(drawn(PERSON), quality), id=f"JPEG {quality}")
            for quality in (50, 75, 90, 97, 100)
        ),
        pytest.param(Image.fromarray(np.array([[0, 1, 2]] * 9, np.uint8)), id="0, 1, 2"),
        pytest.param(drawn(PERSON).point(lambda level: 16 + 219 * level // 255), id="16 and 235"),
    ],
)
def test_grey_levels_that_are_no_classes(mask: Image.Image) -> None:
    """They are taken as they are."""
    assert to_grey(mask, "x").tobytes() == mask.tobytes()


def test_named_classes() -> None:
    """A number, several, a range; anything else is named."""
    assert parse_classes(["15"]) == {15}
    assert parse_classes(["1-3", "7"]) == {1, 2, 3, 7}
    for wrong in ("person", "1-", "-2", "1.5"):
        with pytest.raises(OptionError, match="expected a number or a range"):
            parse_classes([wrong])
    with pytest.raises(OptionError, match="exclude each other"):
        Reading(frozenset([1]), invert=True)
    assert BRIGHT.void(Image.new("L", (2, 2), 255), "x") is None


def test_soft_masks_stay_soft(prepare: Prepare, tmp_path: Path) -> None:
    """8-bit mattes are written as they are; those of two values with one bit."""
    soft = drawn(PERSON).resize((60, 80)).resize((240, 320), Image.Resampling.BICUBIC)
    for name, mask in (("soft", soft), ("hard", drawn(PERSON))):
        save(photo(len(name) + ord(name[0])), tmp_path / f"images/{name}.png")
        save(mask, tmp_path / f"masks/{name}.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    prepare(*folders, "--whole", "--out", tmp_path / "out")
    hard_row, soft_row = read_manifest(tmp_path / "out")
    assert isinstance(soft_row.mask, Path)
    assert isinstance(hard_row.mask, Path)
    assert (Image.open(hard_row.mask).mode, Image.open(soft_row.mask).mode) == ("1", "L")
    assert load_alpha(soft_row).tobytes() == soft.tobytes()


class TestInverted:
    """Masks in which dark is person."""

    def raw(self, folder: Path, inverted: int, upright: int) -> tuple[Any, ...]:
        for index in range(inverted + upright):
            save(photo(index), folder / f"raw/images/{index}.png")
            mask = drawn(PERSON)
            if index < inverted:
                mask = mask.point(lambda value: 255 - value)
            save(mask, folder / f"raw/masks/{index}.png")
        return "--images", folder / "raw/images", "--masks", folder / "raw/masks"

    def test_a_set_of_them_is_recognised_and_can_be_turned(
        self, prepare: Prepare, tmp_path: Path
    ) -> None:
        """The terminal says so and names --invert, with which no doubt is left."""
        folders = self.raw(tmp_path, 4, 1)
        result = prepare(*folders, "--out", tmp_path / "out")
        assert "warning: 4 of 5 masks of raw are white where nobody is" in result.stderr
        assert "with --invert" in result.stderr
        last = result.stdout.splitlines()[-1]
        assert last.startswith("4 of the rows doubtful: 4 × white where nobody is; see ")

        folders = self.raw(tmp_path, 5, 0)
        result = prepare(*folders, "--invert", "--out", tmp_path / "out")
        assert "warning" not in result.stderr
        assert result.stdout.splitlines()[-1] == "no doubtful masks"
        for row in read_manifest(tmp_path / "out"):
            assert load_mask(row).tobytes() == drawn(PERSON).tobytes()
        folders = self.raw(tmp_path, 0, 5)
        result = prepare(*folders, "--invert", "--out", tmp_path / "out")
        assert "run again without --invert" in " ".join(result.stderr.split())

    def test_with_a_detector_each_one_is_told(self, tmp_path: Path) -> None:
        """What merely lies elsewhere is another doubt."""
        self.raw(tmp_path, 3, 0)
        for index, box in ((3, (150, 200, 230, 300)), (4, PERSON)):
            save(photo(index), tmp_path / f"raw/images/{index}.png")
            save(drawn(box), tmp_path / f"raw/masks/{index}.png")
        origin = sources.Origin("s")
        photos = list(sources.pairs(tmp_path / "raw/images", tmp_path / "raw/masks", origin))
        box = np.array([PERSON], np.float32)
        plan = Plan(
            WriteOptions(crop=False, cutouts="none"), lambda _: (box, np.ones(1, np.float32))
        )
        outcome = collect(photos, tmp_path / "out", plan, quiet=True)
        assert [row.extra.get("flags", [])[:1] for row in outcome.rows] == [
            *[["inverted_mask"]] * 3,
            ["mask_disagrees"],
            [],
        ]
        (line,) = doubtful_sources(outcome, inverted=False)
        assert "3 of 5 masks of s are white where nobody is" in line

    def test_a_set_of_other_things_is_recognised(self, tmp_path: Path) -> None:
        """Most masks lie elsewhere than the people: that, too, is said once for all."""
        for index in range(3):
            save(photo(index), tmp_path / f"images/{index}.png")
            save(drawn((150, 200, 230, 300)), tmp_path / f"masks/{index}.png")
        photos = list(sources.pairs(tmp_path / "images", tmp_path / "masks", sources.Origin("s")))
        box = np.array([[10, 10, 100, 150]], np.float32)
        plan = Plan(
            WriteOptions(crop=False, cutouts="none"), lambda _: (box, np.ones(1, np.float32))
        )
        outcome = collect(photos, tmp_path / "out", plan, quiet=True)
        (line,) = doubtful_sources(outcome, inverted=False)
        assert line.startswith("3 of 3 masks of s are elsewhere")

    @pytest.mark.parametrize(
        "shape",
        [
            pytest.param((slice(20, 100), slice(10, 90)), id="cut by the lower edge"),
            pytest.param((slice(10, 100), slice(0, 100)), id="a face that fills the picture"),
            pytest.param((slice(40, 60), slice(45, 55)), id="small"),
            pytest.param((slice(0, 100), slice(0, 45)), id="the left half"),
        ],
    )
    def test_people_are_not_taken_for_their_surroundings(self, shape: tuple[slice, slice]) -> None:
        """And the other way round, without anybody's boxes."""
        binary = np.zeros((100, 100), bool)
        binary[shape] = True
        nobody = np.zeros((0, 4), np.float32)
        assert not is_inverted(binary, nobody)


def test_missing_yolo_weights_name_the_way_without(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline there is --find masks."""
    pytest.importorskip("ultralytics")
    monkeypatch.setenv("U2NET_HUMAN_YOLO_WEIGHTS", str(tmp_path / "gone.pt"))
    save(photo(1), tmp_path / "scenes/a.png")
    result = prepare(
        "--scenes", tmp_path / "scenes", "--out", tmp_path / "out", code=2, plain=False
    )
    assert "gone.pt" in result.output
    assert "--find masks" in result.output


def test_junk_is_no_missing_library(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics, once imported, looks for a HEIC reader for whatever Pillow does not know."""
    original = Image.open

    def opened(path: Any, *args: Any, **options: Any) -> Image.Image:
        try:
            return original(path, *args, **options)
        except Image.UnidentifiedImageError:
            raise ModuleNotFoundError("No module named 'pi_heif'") from None

    monkeypatch.setattr(Image, "open", opened)
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes/junk.jpg").write_bytes(b"junk")
    prepare("--scenes", tmp_path / "scenes", "--out", tmp_path / "out", code=1)
    (aside,) = report(tmp_path / "out")["aside"]
    assert "pi_heif" not in aside["detail"]
    assert (
        "junk.jpg: cannot be read as a picture (it is no picture of a known kind" in aside["detail"]
    )


def test_complete_keeps_what_the_masks_maker_left_open(
    voc: Values, prepare: Prepare, tmp_path: Path
) -> None:
    """The borders stay open; where somebody was looked at closely, what was found counts."""
    save(photo(1), tmp_path / "images/a.png")
    save(palette(voc), tmp_path / "masks/a.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    prepare(*folders, "--person-value", 15, "--whole", "--out", tmp_path / "out")
    (row,) = read_manifest(tmp_path / "out")
    boxes = [(150.0, 210.0, 230.0, 310.0)]
    assert row.bystanders is not None
    trimap = Image.open(row.bystanders).convert("L")
    trimap.paste(128, (150, 210, 231, 311))
    trimap.save(row.bystanders)
    kept = open_elsewhere(row, boxes)
    assert kept[250, 200] == 0
    np.testing.assert_array_equal(kept[:200], np.where(voc == 255, 128, 0)[:200])
