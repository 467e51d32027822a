"""python -m finetune prepare, from folders and files to a training set."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import PERSON, PLAIN, Prepare, drawn, photo, report, save
from PIL import Image, ImageDraw

from u2net_human_plugin.errors import DataError, OptionError
from u2net_human_plugin.finetune.data import prepare as prepare_module
from u2net_human_plugin.finetune.data import sources
from u2net_human_plugin.finetune.data.coco import decode
from u2net_human_plugin.finetune.data.collection import collect
from u2net_human_plugin.finetune.data.cutouts import cut_out
from u2net_human_plugin.finetune.data.inspection import Inspection
from u2net_human_plugin.finetune.data.manifest import read_manifest
from u2net_human_plugin.finetune.data.pictures import load_image, load_mask
from u2net_human_plugin.finetune.data.plan import Plan
from u2net_human_plugin.finetune.data.pseudo_labels import Labeler, load_labeler
from u2net_human_plugin.finetune.data.splits import held_back
from u2net_human_plugin.finetune.data.writer import WriteOptions, crop_boxes

COMMAND = (
    sys.executable,
    "-c",
    "import typer; from u2net_human_plugin.finetune.data.prepare import prepare as p; typer.run(p)",
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Ten photos, half of them JPEG, with masks."""
    for index in range(10):
        save(photo(index), tmp_path / f"raw/images/{index}.{'jpg' if index % 2 else 'png'}")
        save(drawn(PERSON), tmp_path / f"raw/masks/{index}.png")
    return tmp_path / "raw"


def tree(folder: Path) -> dict[str, str]:
    """Every file that a user sees, with its content's hash."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and ".prepare" not in file.parts
    }


def finished(out: Path) -> list[Path]:
    """Pictures, masks and cut-outs under their final names."""
    folders = (out / name for name in ("images", "masks", "cutouts"))
    return [file for folder in folders for file in folder.glob("[!.]*")]


def test_pairs_become_pictures_masks_cutouts_and_rows(
    prepare: Prepare, raw: Path, tmp_path: Path
) -> None:
    """Each pair gives a picture, a 1-bit mask, an RGBA cut-out and a complete row."""
    out = tmp_path / "out"
    prepare("--images", raw / "images", "--masks", raw / "masks", "--terms", "CC0", "--out", out)
    rows = read_manifest(out)
    assert len(rows) == 10
    for row in rows:
        index = int(row.extra["origin"]["name"].split("/")[1].split(".")[0])
        assert (row.source, row.licence) == ("raw", "CC0")
        assert row.extra["sha256"] == hashlib.sha256(row.image.read_bytes()).hexdigest()
        assert row.extra["persons"] == 1
        assert row.extra["boxes"][0][:4] == pytest.approx([40, 30, 201, 301], abs=3)
        np.testing.assert_array_equal(np.asarray(load_mask(row)), np.asarray(drawn(PERSON)))
        assert isinstance(row.mask, Path)
        assert Image.open(row.mask).mode == "1"
        cutout = Image.open(out / row.extra["cutout"])
        assert cutout.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(cutout)[..., 3], np.asarray(drawn(PERSON)))
        assert cutout.getpixel((0, 0)) == (0, 0, 0, 0)
        assert cutout.getpixel((120, 160))[:3] == load_image(row).getpixel((120, 160))  # type: ignore[index]
        if row.image.suffix == ".png":
            assert load_image(row).tobytes() == photo(index).tobytes()


def test_what_cannot_be_used_is_set_aside_with_its_reason(
    prepare: Prepare, raw: Path, tmp_path: Path
) -> None:
    """Every file is either a row or in the report; the command still ends well."""
    images, masks, out = raw / "images", raw / "masks", tmp_path / "out"
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:2000])
    Image.new("L", (100, 100)).save(masks / "1.png")
    Image.new("L", (240, 320)).save(masks / "2.png")
    Image.new("L", (240, 320), 255).save(masks / "3.png")
    (masks / "4.png").unlink()
    (images / "5.jpg").unlink()
    (images / "notes.txt").write_text("not a picture")
    shutil.copy(images / "6.png", images / "copy.png")
    shutil.copy(masks / "6.png", masks / "copy.png")
    pairs = ("--images", images, "--masks", masks, "--out", out)
    prepare(*pairs)
    aside = {item["name"]: (item["reason"], item["detail"]) for item in report(out)["aside"]}
    assert {name: reason for name, (reason, _) in aside.items()} == {
        "raw/0.png": "unreadable",
        "raw/1.jpg": "size mismatch",
        "raw/2.png": "empty mask",
        "raw/3.jpg": "all-foreground mask",
        "raw/4.png": "unusable pair",
        "raw/5.png": "unusable pair",
        "raw/notes.txt": "unusable pair",
        "raw/copy.png": "same file",
    }
    assert "240x320" in aside["raw/1.jpg"][1]
    assert "without a picture" in aside["raw/5.png"][1]
    assert len(read_manifest(out)) == 4
    text = (out / "report.md").read_text("utf-8")
    assert all(name in text and reason in text for name, (reason, _) in aside.items())
    prepare(*pairs, "--strict", code=1)


def test_masks_may_lie_beside_the_pictures(prepare: Prepare, tmp_path: Path) -> None:
    """One folder with photo.jpg and photo_mask.png, and subfolders, is two folders in one."""
    save(photo(1), tmp_path / "both/a/photo.jpg")
    save(drawn(PERSON), tmp_path / "both/a/photo_mask.png")
    folder = tmp_path / "both"
    prepare("--images", folder, "--masks", folder, "--out", tmp_path / "out")
    assert [row.extra["origin"]["name"] for row in read_manifest(tmp_path / "out")] == [
        "both/a/photo.jpg"
    ]
    assert report(tmp_path / "out")["aside"] == []


def test_pictures_are_written_upright(prepare: Prepare, tmp_path: Path) -> None:
    """A photo that EXIF turns is stored turned, and fits its upright mask everywhere."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = photo(3)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    save(stored, tmp_path / "images/a.png", exif=exif)
    save(drawn(PERSON), tmp_path / "masks/a.png")
    prepare(
        *("--images", tmp_path / "images", "--masks", tmp_path / "masks"),
        *("--whole", "--out", tmp_path / "out"),
    )
    (row,) = read_manifest(tmp_path / "out")
    written = Image.open(row.image)
    assert written.getexif().get(0x0112, 1) == 1
    np.testing.assert_array_equal(np.asarray(written), np.asarray(upright))


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        pytest.param([], [None], id="nobody: whole"),
        pytest.param([(100, 100, 200, 300)], [(50, 50, 250, 350)], id="one: with margin"),
        pytest.param([(0, 0, 100, 200)], [(0, 0, 150, 250)], id="margin ends at the frame"),
        pytest.param(
            [(100, 100, 200, 300), (600, 100, 650, 200)],
            [(50, 50, 250, 350), (575, 75, 675, 225)],
            id="two apart: two crops, largest first",
        ),
        pytest.param(
            [(100, 100, 200, 300), (150, 100, 300, 300)],
            [(50, 50, 350, 350)],
            id="two overlapping: one crop",
        ),
        pytest.param([(50, 50, 950, 900)], [None], id="nearly all of it: whole"),
        pytest.param([(100, 100, 120, 140)], [None], id="too small to crop: whole"),
    ],
)
def test_crops_hold_people_with_room_around(people: list[Any], expected: list[Any]) -> None:
    """A quarter of the longer side is left around people in a picture of 1000 x 1000."""
    inspection = Inspection("key", "", (1000, 1000), people=tuple(people))
    assert crop_boxes(inspection, WriteOptions()) == expected
    assert crop_boxes(inspection, WriteOptions(crop=False)) == [None]


def test_each_person_becomes_a_crop(prepare: Prepare, tmp_path: Path) -> None:
    """Two people give two rows of one split with their own boxes, masks and cut-outs."""
    people = ((60, 60, 140, 220), (440, 100, 500, 240))
    image, mask = photo(5, (640, 320)), drawn(*people, size=(640, 320))
    save(image, tmp_path / "images/a.png")
    save(mask, tmp_path / "masks/a.png")
    prepare(
        *("--images", tmp_path / "images", "--masks", tmp_path / "masks"),
        *("--out", tmp_path / "out", "--margin", "0.1", "--min-side", "64"),
    )
    rows = read_manifest(tmp_path / "out")
    assert len(rows) == 2
    assert len({row.split for row in rows}) == 1
    for row, (left, top, right, bottom) in zip(rows, people, strict=True):
        room = 0.1 * (bottom - top + 1)
        crop = load_image(row)
        assert crop.width == pytest.approx(right - left + 1 + 2 * room, abs=6)
        found = row.extra["boxes"][0]
        assert found[:2] == pytest.approx([room, room], abs=4)
        assert found[2] - found[0] == pytest.approx(right - left + 1, abs=6)
        assert row.extra["persons"] == 1
        x, y = (round(value) for value in (left - room, top - room))
        corner = min(
            (
                np.abs(
                    np.asarray(image.crop((x + dx, y + dy, x + dx + 9, y + dy + 9)), int)
                    - np.asarray(crop.crop((0, 0, 9, 9)), int)
                ).max(),
                dx,
                dy,
            )
            for dx in range(-4, 5)
            for dy in range(-4, 5)
        )
        assert corner[0] == 0
        dx, dy = corner[1:]
        expected = mask.crop((x + dx, y + dy, x + dx + crop.width, y + dy + crop.height))
        np.testing.assert_array_equal(np.asarray(load_mask(row)), np.asarray(expected))


def test_cutouts_scenes_and_unlabelled_photos(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RGBA stays RGBA with mask "alpha"; scenes have mask null; made masks say by whom."""
    rgba = photo(1)
    rgba.putalpha(drawn(PERSON).resize((240, 320)))
    save(rgba, tmp_path / "cutouts/c.png")
    save(photo(2), tmp_path / "scenes/s.jpg")
    save(photo(3), tmp_path / "snaps/person.jpg")
    save(Image.new("RGB", (240, 320), "black"), tmp_path / "snaps/nobody.png")
    calls = []

    def segment(image: Image.Image) -> Image.Image:
        calls.append(image)
        return drawn(PERSON) if np.asarray(image).std() > 45 else Image.new("L", image.size)

    monkeypatch.setattr(prepare_module, "load_labeler", lambda name: Labeler(name, segment))
    everything = (
        *("--cutouts", tmp_path / "cutouts", "--scenes", tmp_path / "scenes"),
        *("--photos", tmp_path / "snaps", "--label-with", "some-model"),
        *("--whole", "--out", tmp_path / "out"),
    )
    prepare(*everything)
    rows = {row.extra["origin"]["name"]: row for row in read_manifest(tmp_path / "out")}
    assert {name: row.mask for name, row in rows.items() if not isinstance(row.mask, Path)} == {
        "cutouts/c.png": "alpha",
        "scenes/s.jpg": None,
        "snaps/nobody.png": None,
    }
    assert load_mask(rows["cutouts/c.png"]).getbbox() == drawn(PERSON).getbbox()
    person = rows["snaps/person.jpg"]
    np.testing.assert_array_equal(np.asarray(load_mask(person)), np.asarray(drawn(PERSON)))
    assert person.extra["labelled_by"] == "some-model"
    assert "labelled_by" not in rows["cutouts/c.png"].extra
    assert len(calls) == 2

    prepare(*everything, "--without-person", "reject")
    assert len(calls) == 2, "masks are made once"
    assert [item["name"] for item in report(tmp_path / "out")["aside"]] == ["snaps/nobody.png"]


def test_things_stay_cutouts_and_are_nobody(prepare: Prepare, tmp_path: Path) -> None:
    """--distractors: mask null, "thing" true, transparency kept; also when prepared once more."""
    cup = photo(1)
    cup.putalpha(drawn(PERSON))
    save(cup, tmp_path / "things/cup.png")
    save(photo(2), tmp_path / "things/opaque.png")
    gone = photo(3)
    gone.putalpha(0)
    save(gone, tmp_path / "things/gone.png")
    options = ("--whole", "--without-person", "reject", "--out", tmp_path / "out")
    prepare("--distractors", tmp_path / "things", *options)
    aside = {item["name"]: item["detail"] for item in report(tmp_path / "out")["aside"]}
    assert "no alpha channel" in aside["things/opaque.png"]
    assert "transparent" in aside["things/gone.png"]
    prepare("--manifest", tmp_path / "out", "--whole", "--out", tmp_path / "again")
    for folder in ("out", "again"):
        assert report(tmp_path / folder)["empty_scenes"] == 0
        (row,) = read_manifest(tmp_path / folder)
        assert row.is_distractor
        assert row.mask is None
        assert "cutout" not in row.extra
        with Image.open(row.image) as image:
            assert image.getchannel("A").tobytes() == drawn(PERSON).tobytes()


def rle(mask: np.ndarray[Any, Any], compressed: bool) -> dict[str, Any]:
    """COCO's run lengths, column by column, worked out without pycocotools where possible."""
    if compressed:
        from pycocotools import mask as coco_mask

        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    flat = np.concatenate(([0], mask.T.ravel().astype(int), [0]))
    edges = np.flatnonzero(np.diff(flat))
    bounds = [0, *edges.tolist(), mask.size]
    return {"size": list(mask.shape), "counts": np.diff(bounds).tolist()}


SQUARE = np.zeros((30, 50), bool)
SQUARE[10:20, 5:25] = True


@pytest.mark.parametrize(
    "segmentation",
    [
        pytest.param([[5, 10, 25, 10, 25, 20, 5, 20]], id="polygon"),
        pytest.param(
            [[5, 10, 15, 10, 15, 20, 5, 20], [15, 10, 25, 10, 25, 20, 15, 20]], id="two polygons"
        ),
        pytest.param(rle(SQUARE, compressed=False), id="RLE as a list"),
        pytest.param(rle(SQUARE, compressed=True), id="RLE compressed"),
    ],
)
def test_coco_segmentations_give_the_known_mask(segmentation: Any) -> None:
    """A rectangle of 20 x 10 pixels, in each of COCO's ways to write it."""
    np.testing.assert_array_equal(decode(segmentation, (50, 30), "test"), SQUARE)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        "text",
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, "6"]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, float("nan")]],
        {"size": [30, 50], "counts": [1, 2, 3]},
        {"size": [30, 50], "counts": 5},
        {"size": [30, 50], "counts": "P"},
        {"size": [50, 30], "counts": [1500]},
    ],
    ids=str,
)
def test_malformed_segmentations_are_refused(segmentation: Any) -> None:
    """Each raises the project's error with the annotation's name."""
    with pytest.raises(DataError, match="test: "):
        decode(segmentation, (50, 30), "test")


def test_coco_json_becomes_rows(prepare: Prepare, tmp_path: Path) -> None:
    """People are joined to one mask, other categories ignored, file names kept inside."""
    for index in range(5):
        save(photo(index, (50, 30)), tmp_path / f"val/{index}.png")
    two = [[30, 10, 40, 10, 40, 20, 30, 20]]

    def annotation(image: int, category: int, segmentation: Any) -> dict[str, Any]:
        return {"image_id": image, "category_id": category, "segmentation": segmentation}

    def listed(index: int, name: str, **more: Any) -> dict[str, Any]:
        return {"id": index, "file_name": name, "width": 50, "height": 30, "license": 4} | more

    content = {
        "licenses": [{"id": 4, "name": "CC BY 4.0"}],
        "categories": [{"id": 7, "name": "Person"}, {"id": 8, "name": "dog"}],
        "images": [
            listed(0, "0.png"),
            listed(1, "1.png"),
            listed(2, "2.png", width=51),
            listed(3, "3.png"),
            listed(4, "../val/4.png"),
        ],
        "annotations": [
            annotation(0, 7, rle(SQUARE, compressed=True)),
            annotation(0, 7, two),
            annotation(0, 8, [[0, 0, 50, 0, 50, 30, 0, 30]]),
            annotation(2, 7, two),
            annotation(3, 7, [[1, 2, 3]]),
        ],
    }
    (tmp_path / "people.json").write_text(json.dumps(content))
    prepare(
        *("--coco", tmp_path / "people.json", "--coco-images", tmp_path / "val"),
        *("--whole", "--out", tmp_path / "out"),
    )
    rows = {row.extra["origin"]["name"]: row for row in read_manifest(tmp_path / "out")}
    assert set(rows) == {"people/0.png", "people/1.png"}
    expected = SQUARE.copy()
    expected[10:20, 30:40] = True
    np.testing.assert_array_equal(np.asarray(load_mask(rows["people/0.png"])), expected * 255)
    assert rows["people/0.png"].licence == "CC BY 4.0"
    assert [box[:4] for box in rows["people/0.png"].extra["boxes"]] == [
        [5, 10, 25, 20],
        [30, 10, 40, 20],
    ]
    assert rows["people/1.png"].mask is None
    assert {item["name"]: item["reason"] for item in report(tmp_path / "out")["aside"]} == {
        "people/2.png": "size mismatch",
        "people/3.png": "unreadable",
        "people/../val/4.png": "unusable pair",
    }


@pytest.fixture
def raw_manifest(raw: Path) -> Path:
    """A manifest of the ten photos with splits and two licences."""
    rows = [
        {
            "image": f"images/{index}.{'jpg' if index % 2 else 'png'}",
            "mask": f"masks/{index}.png",
            "source": "studio",
            "split": "test" if index < 3 else "train",
            "licence": "CC0-1.0" if index % 2 else "Apache-2.0 (repository)",
            "camera": "X100",
        }
        for index in range(10)
    ]
    (raw / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return raw / "manifest.jsonl"


def test_a_manifest_keeps_its_splits_and_may_be_filtered_by_licence(
    prepare: Prepare, raw_manifest: Path, tmp_path: Path
) -> None:
    """Splits, sources, licences and foreign keys stay; patterns ignore case."""
    out = tmp_path / "out"
    prepare("--manifest", raw_manifest, "--out", out)
    rows = read_manifest(out)
    assert [row.split for row in rows] == ["test"] * 3 + ["train"] * 7
    assert {(row.source, row.extra["camera"]) for row in rows} == {("studio", "X100")}

    prepare("--manifest", raw_manifest, "--licence", "apache*", "--out", out)
    assert {row.licence for row in read_manifest(out)} == {"Apache-2.0 (repository)"}
    assert report(out)["reasons"] == {"other licence": 5}


def test_near_duplicates_across_train_and_test_are_removed_from_train(
    prepare: Prepare, raw: Path, raw_manifest: Path, tmp_path: Path
) -> None:
    """Test pictures stay; a smaller copy in train is reported with the one it duplicates."""
    small = (180, 240)
    photo(0).resize(small).save(raw / "images/8.png")
    drawn(PERSON).resize(small).save(raw / "masks/8.png")
    photo(9).resize(small).save(raw / "images/6.png")  # within train: kept, as one group
    drawn(PERSON).resize(small).save(raw / "masks/6.png")
    prepare("--manifest", raw_manifest, "--out", tmp_path / "out")
    aside = report(tmp_path / "out")["aside"]
    assert [item["name"] for item in aside] == ["studio/images/8.png"]
    assert aside[0]["reason"] == "near-duplicate across splits"
    assert "studio/images/0.png" in aside[0]["detail"]
    rows = {row.extra["origin"]["name"]: row for row in read_manifest(tmp_path / "out")}
    assert rows["studio/images/0.png"].split == "test"
    pair = [rows[f"studio/images/{name}"] for name in ("6.png", "9.jpg")]
    assert pair[0].extra["group"] == pair[1].extra["group"]
    assert "group" not in rows["studio/images/1.jpg"].extra


def test_a_second_run_does_only_what_is_new(prepare: Prepare, raw: Path, tmp_path: Path) -> None:
    """Nothing is looked at or written twice, added pictures move none, and files stay."""
    out = tmp_path / "out"
    pairs = ("--images", raw / "images", "--masks", raw / "masks", "--out", out)
    prepare(*pairs)
    first, splits = tree(out), {row.image.name: row.split for row in read_manifest(out)}
    stamps = {file: file.stat().st_mtime_ns for file in (out / "images").iterdir()}
    prepare(*pairs)
    assert (report(out)["inspected"], report(out)["written"]) == (0, 0)
    assert {name: tree(out)[name] for name in first if not name.startswith("report")} == {
        name: content for name, content in first.items() if not name.startswith("report")
    }

    save(photo(50), raw / "images/sub/0.png")  # the name of another, elsewhere
    save(drawn(PERSON), raw / "masks/sub/0.png")
    (out / "masks" / next((out / "masks").iterdir()).name).unlink()
    prepare(*pairs)
    assert (report(out)["inspected"], report(out)["written"]) == (1, 2)
    rows = read_manifest(out)
    assert len(rows) == 11
    assert {row.image.name: row.split for row in rows if row.image.name in splits} == splits
    same = {file: file.stat().st_mtime_ns for file in stamps}
    assert sum(same[file] != stamp for file, stamp in stamps.items()) <= 1


@pytest.mark.process
def test_a_run_killed_at_any_moment_goes_on(raw: Path, tmp_path: Path) -> None:
    """After kill −9 at random moments, the end is the same as without, file by file."""
    for index in range(24):
        save(photo(index, (900, 1200)), raw / f"images/{index}.png")
        save(drawn((300, 200, 600, 1000), size=(900, 1200)), raw / f"masks/{index}.png")
    for index in range(1, 10, 2):
        (raw / f"images/{index}.jpg").unlink()
    pairs = ["--images", raw / "images", "--masks", raw / "masks", *PLAIN, "--out"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*COMMAND, *map(str, [*pairs, whole])], check=True, capture_output=True)

    rng, kills = random.Random(7), 0
    for goal in (1, 12, 30, 45):  # files written, of 72
        run = subprocess.Popen(
            [*COMMAND, *map(str, [*pairs, killed])],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        while run.poll() is None and len(finished(killed)) < goal:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.03))
        run.send_signal(signal.SIGKILL)
        kills += run.wait() == -signal.SIGKILL
        if (killed / "manifest.jsonl").exists():  # the run was quicker than the kill
            assert len(read_manifest(killed)) == len(read_manifest(whole))
        for file in finished(killed):
            Image.open(file).load()
    assert kills >= 2
    subprocess.run([*COMMAND, *map(str, [*pairs, killed])], check=True, capture_output=True)
    assert not list(killed.rglob("*.tmp"))
    with_runs = tree(killed)
    assert with_runs.pop("report.json") != ""
    assert with_runs.pop("report.md") == tree(whole)["report.md"]
    assert with_runs == {k: v for k, v in tree(whole).items() if not k.startswith("report")}


def test_a_full_disk_ends_the_run_cleanly(
    prepare: Prepare, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, leaves no half-written file and no manifest, and goes on with more room."""
    out = tmp_path / "out"
    pairs = ("--images", raw / "images", "--masks", raw / "masks", "--out", out)
    original = Image.Image.save

    def full(self: Image.Image, path: Any, *args: Any, **options: Any) -> None:
        if "cutouts" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        original(self, path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        result = prepare(*pairs, code=1)
    assert "the disk is full; make room" in result.output
    assert not list((out / "cutouts").iterdir())
    assert not (out / "manifest.jsonl").exists()
    prepare(*pairs)
    assert len(read_manifest(out)) == 10


def test_two_runs_never_work_in_one_folder(prepare: Prepare, raw: Path, tmp_path: Path) -> None:
    """The second is told so at once; the lock of a killed run does not count."""
    import filelock

    (tmp_path / "out/.prepare").mkdir(parents=True)
    pairs = ("--images", raw / "images", "--masks", raw / "masks", "--out", tmp_path / "out")
    with filelock.FileLock(tmp_path / "out/.prepare/lock"):
        assert "another" in prepare(*pairs, code=2).output
    prepare(*pairs)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no input"),
        (("--images", "{raw}/images"), "--masks 0 times"),
        (("--images", "{raw}/nowhere", "--masks", "{raw}/masks"), "is not a folder"),
        (("--photos", "{raw}/images"), "--label-with"),
        (("--coco", "{raw}/images/0.png"), "cannot be read as JSON"),
        (("--coco", "{raw}/list.json"), "not a COCO-style JSON"),
        (("--coco", "{raw}/dogs.json"), "no category 'person' (it has: dog)"),
        (("--manifest", "{raw}/missing.jsonl"), "cannot be read as a manifest"),
        (("--manifest", "{raw}/out/manifest.jsonl"), "would be written"),
        (("--scenes", "{raw}/images", "--val", "0.6", "--test", "0.6"), "more than all"),
        (
            ("--photos", "{raw}/images", "--label-with", "no-such-model"),
            "neither a rembg session",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unusable_arguments_are_errors(
    arguments: tuple[str, ...], says: str, prepare: Prepare, raw: Path
) -> None:
    """The command ends with 2, says what to change, and writes nothing."""
    (raw / "list.json").write_text("[]")
    dogs: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "dog"}],
    }
    (raw / "dogs.json").write_text(json.dumps(dogs))
    filled = [argument.format(raw=raw) for argument in arguments]
    result = prepare(*filled, "--out", raw / "out", code=2)
    assert says in " ".join(result.output.split())
    assert not (raw / "out").exists()


def test_nothing_usable_is_an_error(prepare: Prepare, tmp_path: Path) -> None:
    """A set without a single row does not look like success, and says what stands in the way."""
    save(photo(0), tmp_path / "images/a.png")
    save(Image.new("L", (240, 320)), tmp_path / "masks/a.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    output = prepare(*folders, "--out", tmp_path / "o", code=1).output
    reason = json.loads((tmp_path / "o" / "report.json").read_text())["aside"][0]["detail"]
    assert f"no picture could be used; the first: {reason.rstrip('.')}; see" in output


def test_estimated_cutouts_carry_no_background() -> None:
    """Beside a hard-edged mask, mixed edge pixels lose most of the old background's colour."""
    mask = drawn((60, 60, 260, 340), size=(320, 400))
    soft = mask.resize((160, 200)).resize((320, 400), Image.Resampling.BICUBIC)
    image = Image.composite(
        Image.new("RGB", mask.size, "lime"), Image.new("RGB", mask.size, "red"), soft
    )

    def redness(cutout: Image.Image) -> float:
        values = np.asarray(cutout, float)
        alpha = values[..., 3] / 255
        return float((values[..., 0] * alpha).sum() / alpha.sum())

    straight, estimated = cut_out(image, mask, False), cut_out(image, mask, True)
    assert redness(estimated) < 0.4 * redness(straight)
    np.testing.assert_array_equal(np.asarray(straight)[..., 3], np.asarray(mask))


def test_rows_say_whether_a_detector_looked(
    prepare: Prepare, raw_manifest: Path, tmp_path: Path
) -> None:
    """By its name, also in a set from before, and anew when prepared once more."""
    cutout = photo(20)
    cutout.putalpha(drawn(PERSON))
    save(cutout, tmp_path / "cutouts/c.png")

    def detect(_image: Image.Image) -> tuple[Any, Any]:
        return np.array([PERSON], np.float32), np.array([0.9], np.float32)

    photos = [
        *sources.manifest(raw_manifest, sources.Origin()),
        *sources.folder(tmp_path / "cutouts", "alpha", sources.Origin()),
    ]
    plan = Plan(WriteOptions(crop=False, cutouts="none"), detect, "somebody's eyes")
    for _ in range(2):
        collect(photos, tmp_path / "out", plan, quiet=True)
        rows = read_manifest(tmp_path / "out")
        assert [row.extra["detector"] for row in rows] == ["somebody's eyes"] * 10 + [None]
        assert [row.was_searched for row in rows] == [True] * 10 + [False]
    prepare("--manifest", tmp_path / "out", "--whole", "--out", tmp_path / "again")
    rows = read_manifest(tmp_path / "again")
    assert [row.extra["detector"] for row in rows] == [None] * 11
    assert all(row.extra["boxes"] and not row.was_searched for row in rows)


def test_crops_prepared_anew_are_still_crops_of_one_photo(prepare: Prepare, tmp_path: Path) -> None:
    """The second names have lost the crop's number; training and validation get none of both."""
    size = (400, 320)
    two = drawn((10, 40, 120, 300), (270, 30, 390, 310), size=size)
    for index in range(20):
        name = f"one-of-two-people-with-a-very-long-name-{index:02}.png"
        save(photo(index, size), tmp_path / "raw/images" / name)
        save(two, tmp_path / "raw/masks" / name)
    folders = ("--images", tmp_path / "raw/images", "--masks", tmp_path / "raw/masks")
    prepare(*folders, "--test", 0, "--val", 0, "--out", tmp_path / "out")
    prepare("--manifest", tmp_path / "out", "--whole", "--out", tmp_path / "again")
    for out in ("out", "again"):
        held = defaultdict(list)
        for row in read_manifest(tmp_path / out):
            assert row.extra["is_crop"]
            if "group" not in row.extra:
                held[row.extra["origin"]["sha256"]].append(held_back(row, share=0.5))
        pairs = [answers for answers in held.values() if len(answers) == 2]
        assert len(pairs) >= 12
        assert all(first == second for first, second in pairs)
        assert {first for first, _ in pairs} == {True, False}


def test_masks_of_other_weights_are_made_anew(raw: Path, tmp_path: Path) -> None:
    """A model trained further keeps its file's name; its masks are not the old ones."""
    photos = list(sources.folder(raw / "images", "label", sources.Origin()))

    def masks(weights: str, box: tuple[int, int, int, int]) -> list[bytes]:
        labeler = Labeler("best.pt", lambda _image: drawn(box), weights_sha256=weights)
        plan = Plan(WriteOptions(crop=False, cutouts="none"), labeler=labeler)
        rows = collect(photos, tmp_path / "out", plan, quiet=True).rows
        assert {row.extra["labelled_by"] for row in rows} == {"best.pt"}
        return [load_mask(row).tobytes() for row in rows]

    assert masks("ab", PERSON) == [drawn(PERSON).tobytes()] * 10
    slim = (90, 40, 120, 200)
    assert masks("ab", slim) == [drawn(PERSON).tobytes()] * 10, "masks are made once"
    assert masks("cd", slim) == [drawn(slim).tobytes()] * 10


@pytest.mark.process
@pytest.mark.parametrize("out", ["out", "\udcff"], ids=["out", "an out of such a name"])
def test_names_that_are_no_utf_8_end_no_run(out: str, tmp_path: Path) -> None:
    """Such pictures become rows, bad ones are named in the report, in a strict terminal, too."""
    source = tmp_path / "caf\udce9/images"
    try:
        save(photo(20), source / "b\udce9b\u2028.png")
    except (OSError, UnicodeError):
        pytest.skip("the file system takes no such names")
    (source / "d\udce9j\udce0.png").write_bytes(b"no picture")
    for picture in list(source.iterdir()):
        save(drawn(PERSON), tmp_path / "masks" / picture.name)
    folders = ["--images", source, "--masks", tmp_path / "masks", *PLAIN, "--out", tmp_path / out]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "u2net_human_plugin.finetune"),
            "prepare",
            *map(os.fsencode, folders),
        ],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    (row,) = read_manifest(tmp_path / out)
    assert row.source == r"caf\udce9"
    assert row.extra["origin"]["name"] == "caf\\udce9/b\\udce9b\u2028.png"
    (aside,) = report(tmp_path / out)["aside"]
    assert (aside["name"], aside["reason"]) == (r"caf\udce9/d\udce9j\udce0.png", "unreadable")
    assert r"d\udce9j\udce0.png" in (tmp_path / out / "report.md").read_text("utf-8")


@pytest.fixture
def yolo(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """YOLOv8n from a local file, so that nothing is downloaded."""
    pytest.importorskip("ultralytics")
    monkeypatch.setenv("U2NET_HUMAN_YOLO_WEIGHTS", str(shared / "weights/yolov8n.pt"))


@pytest.mark.usefixtures("yolo")
def test_yolo_finds_people_and_those_the_mask_leaves_out(prepare: Prepare, tmp_path: Path) -> None:
    """Of the street photo's people one is labelled: the whole is flagged, her crop is clean."""
    from ultralytics.utils import ASSETS

    from u2net_human_plugin.yolo import find_people

    bus = Image.open(ASSETS / "bus.jpg").convert("RGB")
    boxes, scores = find_people(bus, size=640)
    clear = boxes[scores > 0.5]
    right = clear[clear[:, 0].argmax()].round().astype(int).tolist()
    mask = Image.new("L", bus.size)
    ImageDraw.Draw(mask).rectangle(right, fill=255)
    save(bus, tmp_path / "images/bus.png")
    save(mask, tmp_path / "masks/bus.png")
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    pair = (*folders, "--cutout-colours", "none", "--out", tmp_path / "out")

    prepare(*pair, "--whole", plain=False)
    (row,) = read_manifest(tmp_path / "out")
    assert (row.extra["flags"], row.extra["persons"]) == (["unlabelled_person"], 1)
    assert len(row.extra["boxes"]) >= 3

    prepare(*pair, "--margin", "0.1", "--unlabelled-person", "aside", plain=False)
    (row,) = read_manifest(tmp_path / "out")
    assert "flags" not in row.extra
    assert row.extra["persons"] == 1
    assert right[2] - right[0] < load_image(row).width < 0.5 * bus.width
    assert report(tmp_path / "out")["inspected"] == 0, "cropping asks for no new look"

    prepare(*pair, "--whole", "--unlabelled-person", "aside", plain=False, code=1)
    assert report(tmp_path / "out")["reasons"] == {"unlabelled person": 1}


@pytest.mark.usefixtures("yolo")
def test_a_detection_model_is_no_labeler(shared: Path) -> None:
    """Boxes are not masks: the message asks for a segmentation model."""
    with pytest.raises(OptionError, match="segmentation"):
        load_labeler(str(shared / "weights/yolov8n.pt"))


@pytest.mark.usefixtures("yolo")
def test_a_yolo_segmentation_model_labels(tmp_path: Path, astronaut: Image.Image) -> None:
    """Any …-seg.pt gives a mask of the photo's size (untrained weights stand in here)."""
    from ultralytics.models import YOLO

    YOLO("yolov8n-seg.yaml").save(tmp_path / "tiny-seg.pt")
    labeler = load_labeler(str(tmp_path / "tiny-seg.pt"))
    mask = labeler(astronaut.crop((0, 0, 400, 512)))
    assert (labeler.name, mask.mode, mask.size) == ("tiny-seg.pt", "L", (400, 512))
    digest = hashlib.sha256((tmp_path / "tiny-seg.pt").read_bytes()).hexdigest()
    assert labeler.id == f"tiny-seg.pt {digest}"


def test_a_rembg_session_labels(
    prepare: Prepare,
    official_onnx: Path,
    astronaut: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mask is what rembg makes of the photo, and the row says which session made it."""
    rembg = pytest.importorskip("rembg")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    shutil.copy(official_onnx, tmp_path / "home/u2netp.onnx")  # where every rembg looks
    save(astronaut, tmp_path / "photos/a.png")
    prepare(
        *("--photos", tmp_path / "photos", "--label-with", "u2netp", "--whole"),
        *("--out", tmp_path / "out"),
    )
    (row,) = read_manifest(tmp_path / "out")
    assert row.extra["labelled_by"] == "u2netp"
    digest = hashlib.sha256(official_onnx.read_bytes()).hexdigest()
    assert load_labeler("u2netp").id == f"u2netp {digest}"
    expected = rembg.remove(astronaut, session=rembg.new_session("u2netp"), only_mask=True)
    np.testing.assert_array_equal(np.asarray(load_mask(row)) == 255, np.asarray(expected) >= 128)


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise there")
def test_the_given_data_can_be_prepared(prepare: Prepare, shared: Path, tmp_path: Path) -> None:
    """Of a slice of the real data, the empty mask is set aside and all else becomes rows."""
    lines = (shared / "data/manifest.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    few = [
        row for row in rows if row["image"] in {f"ccp/images/{n:04}.jpg" for n in range(533, 539)}
    ]
    few += [row for row in rows if row["source"] == "cutouts"][95:105]
    for row in few:
        row["image"] = str(shared / "data" / row["image"])
        if row["mask"] not in (None, "alpha"):
            row["mask"] = str(shared / "data" / row["mask"])
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in few))
    prepare("--manifest", tmp_path / "few.jsonl", "--whole", "--out", tmp_path / "out")
    found = report(tmp_path / "out")
    assert [(item["reason"], item["name"][-8:]) for item in found["aside"]] == [
        ("empty mask", "0536.jpg")
    ]
    assert found["rows"] == len(few) - 1
    for row in read_manifest(tmp_path / "out"):
        assert load_mask(row).size == load_image(row).size
