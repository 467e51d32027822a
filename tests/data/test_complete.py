"""People whom a mask leaves out: drawn by `complete`, learned from by `train`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.data.manifest import Row, read_manifest, write_manifest
from u2net_human_plugin.finetune.data.unlabelled import left_out, trimap
from u2net_human_plugin.finetune.training.checkpoints import data_hash
from u2net_human_plugin.finetune.training.dataset import Material, Mix, PeopleDataset

WIDTH, HEIGHT = 300, 200
#: A bystander, xyxy: the detector's box, and where the person is.
BOX = (200.0, 50.0, 260.0, 150.0)
BODY = (210, 55, 250, 148)


def photo() -> tuple[Image.Image, Image.Image]:
    """Green people before grey: one at the left, who is in the mask, and the bystander."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
    mask = Image.new("L", image.size)
    image.paste((0, 255, 0), (20, 20, 100, 200))
    mask.paste(255, (20, 20, 100, 200))
    image.paste((0, 255, 0), BODY)
    return image, mask


def green(image: Image.Image) -> npt.NDArray[np.uint8]:
    """A perfect network, but for a soft edge: alpha of 130 in the outermost pixels."""
    inside = np.asarray(image)[..., 1] > 200
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where(core & inside, 255, np.where(inside, 130, 3)).astype(np.uint8)


def test_a_box_counts_as_left_out_if_the_mask_is_bare_there() -> None:
    """The bystander's does; the labelled person's, and one outside of the picture, do not."""
    _, mask = photo()
    boxes = [[20, 20, 100, 200, 0.9], [*BOX, 0.5], [400, 10, 420, 50, 0.5]]
    row = Row(Path("a.png"), Path("m.png"), extra={"boxes": boxes, "detector": "yolo"})
    assert left_out(row, mask) == [BOX]


def test_the_trimap_is_sure_of_the_body_and_not_of_its_edge() -> None:
    """255 inside, 128 on the soft edge, 0 everywhere else, on the labelled person as well."""
    image, mask = photo()
    drawn = trimap(image, mask, [BOX], green)
    left, top, right, bottom = BODY
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[top:bottom, left:right] = 128
    expected[top + 1 : bottom - 1, left + 1 : right - 1] = 255
    assert (drawn == expected).all()


def test_a_box_in_which_nobody_is_found_stays_unknown() -> None:
    """As does one with a mere speck; the masked person in reach of a box stays out."""
    image, mask = photo()
    image.paste((90, 90, 90), BODY)
    image.paste((0, 255, 0), (225, 100, 235, 110))
    drawn = trimap(image, mask, [BOX], green)
    assert (drawn[50:150, 200:260] == 128).all()
    assert set(np.unique(drawn)) == {0, 128}
    # The labelled person fills half of this one, and is nobody new.
    drawn = trimap(image, mask, [(60.0, 50.0, 140.0, 150.0)], green)
    assert (drawn[50:150, 60:100] == 0).all()
    assert (drawn[50:150, 100:140] == 128).all()


def test_training_learns_from_the_trimap(tmp_path: Path) -> None:
    """Its people are people, with their own weight, and what is unknown has none."""
    image, mask = photo()
    image.save(tmp_path / "a.png")
    mask.save(tmp_path / "m.png")
    drawn = trimap(image, mask, [BOX], green)
    Image.fromarray(drawn).save(tmp_path / "t.png")
    row = Row(
        tmp_path / "a.png",
        tmp_path / "m.png",
        "street",
        "train",
        extra={"boxes": [[*BOX, 0.5]], "detector": "yolo"},
        bystanders=tmp_path / "t.png",
    )

    def sample(row: Row) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        material = Material([row], coarse={"street": 3})
        picture = PeopleDataset(material, mix=Mix(1, 0, 0, 0)).sample(0)
        return np.asarray(picture.alpha), np.asarray(picture.weight)

    alpha, weight = sample(row)
    body = drawn == 255
    assert (alpha[body] == 255).all()
    assert (weight[body] == 255).all()
    assert (weight[drawn == 128] == 0).all()
    # Beside the bystander it is known that nobody is there.
    assert (weight[50:150, 201:209] == 255).all()
    assert (alpha[50:150, 201:209] == 0).all()
    # A run's record tells whether, and which.
    assert data_hash([row]) != data_hash([replace(row, bystanders=None)])
    # One that was drawn for another picture is refused.
    Image.new("L", (WIDTH, HEIGHT + 1)).save(tmp_path / "t.png")
    with pytest.raises(DataError, match=r"t\.png: is 300x201 pixels, .*a\.png 300x200; run"):
        sample(row)
    # Without a trimap nothing of the box counts.
    alpha, weight = sample(replace(row, bystanders=None))
    assert not alpha[body].any()
    assert not weight[50:150, 200:260].any()


def test_a_scene_with_somebody_in_it_is_no_scene(tmp_path: Path) -> None:
    """Whom the detector saw in a photo given as an empty scene never becomes background."""
    image, mask = photo()
    image.save(tmp_path / "a.png")
    mask.save(tmp_path / "m.png")
    Image.new("RGB", image.size, (200, 0, 0)).save(tmp_path / "red.png")
    person = Row(tmp_path / "a.png", tmp_path / "m.png")
    boxes = [[*BOX, 0.9]]
    taken = replace(
        person,
        mask=None,
        extra={"boxes": boxes, "detector": "yolo", "flags": ["unlabelled_person"]},
    )
    # One box that is small or faint raises no flag.
    scene = Row(tmp_path / "red.png", None, extra={"boxes": boxes, "detector": "yolo"})
    assert PeopleDataset(Material([person, taken, scene])).scenes == [scene]


def test_people_beside_a_mask_are_no_background_without_a_detector(tmp_path: Path) -> None:
    """A photo is cut beside its people only if a detector looked for them."""
    image, mask = photo()
    image.save(tmp_path / "a.png")
    mask.save(tmp_path / "m.png")
    regions = [[20, 20, 100, 200, 1.0]]
    row = Row(tmp_path / "a.png", tmp_path / "m.png", extra={"boxes": regions, "detector": None})
    assert PeopleDataset(Material([row])).seen == []
    searched = replace(row, extra={"boxes": [*regions, [*BOX, 0.8]], "detector": "yolo"})
    assert PeopleDataset(Material([searched])).seen == [searched]


def test_a_run_s_data_is_known_by_its_order_and_its_held_back_rows() -> None:
    """The one decides which picture is number n, the other what "best" means."""
    rows = [
        Row(Path("/d/b.jpg"), None, "one", "train", "CC0-1.0", {"sha256": "ab"}),
        Row(Path("/d/a.jpg"), "alpha", "one", "train"),
    ]
    held = [replace(row, split="val") for row in rows]
    hashes = {
        data_hash(rows, held),
        data_hash(rows[::-1], held),
        data_hash(rows, held[::-1]),
        data_hash(rows, held[:1]),
        data_hash(rows, []),
        data_hash(rows[:1], rows[1:]),
    }
    assert len(hashes) == 6
    assert data_hash([replace(row, image=Path("/e") / row.image.name) for row in rows]) in hashes


@pytest.fixture
def street(tmp_path: Path, astronaut: Image.Image) -> Path:
    """Three photos of a small `astronaut` beside a masked one; the second is a test photo."""
    person = astronaut.crop((60, 0, 400, 512))
    rows = []
    for name, split in (("a", "train"), ("b", "test"), ("c", "train")):
        image = Image.fromarray(data.brick()).convert("RGB").resize((900, 600))
        image.paste(person, (0, 88))
        image.paste(person.resize((136, 205)), (640, 300))
        mask = Image.new("L", image.size)
        mask.paste(255, (0, 88, 340, 600))
        image.save(tmp_path / f"{name}.png")
        mask.save(tmp_path / f"{name}-mask.png")
        boxes = [[0, 88, 340, 600, 0.9], [640, 300, 776, 505, 0.8]]
        extra = {"boxes": boxes, "detector": "yolo"}
        image_path, mask_path = tmp_path / f"{name}.png", tmp_path / f"{name}-mask.png"
        rows.append(Row(image_path, mask_path, "street", split, "CC0-1.0", extra))  # type: ignore[arg-type]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    return tmp_path / "manifest.jsonl"


def test_complete_draws_with_the_bundled_weights(street: Path) -> None:
    """The set's photos stay, training photos get a trimap with the face in it, tests do not."""
    out = street.parent / "completed"
    done = CliRunner().invoke(app, ["complete", "--manifest", str(street), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "3 pictures, 2 of them with bystanders" in done.output
    before, after = read_manifest(street), read_manifest(out)
    assert [row.image.resolve() for row in after] == [row.image for row in before]
    assert after[1].bystanders is None
    assert after[0].extra["bystanders_by"] == "bundled?crop=off"
    assert after[0].bystanders is not None
    drawn = np.asarray(Image.open(after[0].bystanders))
    # The face of the small one, of which the photo's own mask knows nothing.
    assert (drawn[330:350, 700:712] == 255).mean() > 0.9
    assert not drawn[:, :600].any()
    assert not drawn[:250].any()


def test_a_bad_photo_stays_as_it_was_and_is_named(street: Path) -> None:
    """The others are drawn, and the exit is not 0."""
    (street.parent / "a-mask.png").write_bytes(b"no picture")
    out = street.parent / "completed"
    done = CliRunner().invoke(app, ["complete", "--manifest", str(street), "--out", str(out)])
    assert done.exit_code == 1
    assert "a-mask.png: cannot be read as a picture" in done.output
    assert "1 pictures stay as they were" in done.output
    assert [row.bystanders is not None for row in read_manifest(out)] == [False, False, True]


def test_a_trimap_that_is_gone_is_named(street: Path) -> None:
    """Before a training starts, not hours later; and paths survive another folder."""
    row = json.loads(street.read_text().splitlines()[0])
    street.write_text(json.dumps(row | {"bystanders": "gone.png"}) + "\n")
    done = CliRunner().invoke(
        app, ["complete", "--manifest", str(street), "--out", str(street.parent / "x")]
    )
    assert done.exit_code == 1
    assert "gone.png does not exist" in done.output
