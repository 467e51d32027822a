"""Soft labels: what teachers average to, who counts as somebody, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from u2net_human_plugin.errors import OptionError, WeightsError
from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.data.manifest import Row, write_manifest
from u2net_human_plugin.finetune.data.teachers import Teacher, load_teacher, soft_label

SIZE = 32
PICTURE = Image.new("RGB", (64, 48))


def saying(*regions: tuple[tuple[slice, slice], float], **facts: object) -> Teacher:
    """A teacher whose logits are -6 but for the regions given."""
    logits = np.full((SIZE, SIZE), -6.0, np.float32)
    for region, value in regions:
        logits[region] = value
    return Teacher("stand-in", lambda _: logits, **facts)  # type: ignore[arg-type]


LEFT, RIGHT = np.s_[8:24, 2:12], np.s_[8:24, 20:30]


def test_the_average_is_of_logits_and_weighted() -> None:
    """Three parts of 4 and one of -6 are 1.5, whose sigmoid is 0.82."""
    made = soft_label(PICTURE, [saying((LEFT, 4.0), weight=3), saying()], SIZE)
    assert made.matte[16, 6] == round(255 / (1 + np.exp(-1.5)))
    assert made.matte[2, 2] == round(255 / (1 + np.exp(6)))


def test_who_disagrees_completely_teaches_nothing() -> None:
    """Two teachers of one weight, one sure of a person, one of nobody."""
    made = soft_label(PICTURE, [saying((LEFT, 8.0)), saying((LEFT, -8.0))], SIZE)
    assert made.agreement[16, 6] <= 1
    assert made.agreement[2, 2] == 255


def test_what_only_saliency_marks_is_a_thing() -> None:
    """Of two regions that stand out, the one that a teacher of people sees too stays."""
    salient, human = saying((LEFT, 6.0), (RIGHT, 6.0), weight=3), saying((LEFT, 6.0))
    without = soft_label(PICTURE, [salient, human], SIZE)
    assert without.matte[16, 25] > 200  # nobody was asked who is somebody
    human = saying((LEFT, 6.0), knows_people=True)
    made = soft_label(PICTURE, [salient, human], SIZE)
    assert made.matte[16, 6] > 250
    assert made.matte[16, 25] == 0
    assert made.agreement[16, 25] > 250


def test_a_detectors_box_makes_a_region_somebody() -> None:
    """Saliency draws who only the detector knows to be a person."""
    salient = saying((LEFT, 6.0), (RIGHT, 6.0))
    box = np.zeros((48, 64), bool)
    box[20:30, 44:50] = True  # the middle of RIGHT, in pixels of the picture
    made = soft_label(PICTURE, [salient], SIZE, somebody=box)
    assert made.matte[16, 25] > 250
    assert made.matte[16, 6] == 0


def test_large_maps_are_averaged_not_sampled() -> None:
    """A grid of one-pixel stripes becomes grey, in a map four times as large."""
    stripes = np.where(np.arange(128) % 2, 8.0, -8.0).astype(np.float32)
    teacher = Teacher("stripes", lambda _: np.tile(stripes, (128, 1)))
    matte = soft_label(PICTURE, [teacher], SIZE).matte
    assert ((matte[4:-4, 4:-4] > 100) & (matte[4:-4, 4:-4] < 155)).all()


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("bundled?sise=3", OptionError, "no setting 'sise'"),
        ("bundled?weight=much", OptionError, "weight='much'"),
        ("bundled?weight=0", OptionError, "weight='0'"),
        ("bundled?flip=yes", OptionError, "flip='yes'"),
        ("teacher.txt", WeightsError, "names no teacher"),
        ("missing.onnx", WeightsError, "missing.onnx"),
    ],
)
def test_wrong_teachers_are_named(spec: str, error: type[Exception], says: str) -> None:
    """What is wrong, and what would be right, in one line."""
    with pytest.raises(error, match=says):
        load_teacher(spec)


def test_the_mirrored_look_is_turned_back() -> None:
    """With flip=on the answer to a mirrored picture is the mirrored answer."""
    teacher = load_teacher("bundled?size=96&flip=on")
    picture = Image.fromarray(data.astronaut())
    mirrored = teacher.logits(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    np.testing.assert_allclose(mirrored[:, ::-1], teacher.logits(picture), atol=0.05)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A manifest of a portrait without mask, a test picture, and one that is no picture."""
    astronaut = Image.fromarray(data.astronaut()).resize((128, 128))
    for name in ("a.png", "test.png"):
        astronaut.save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = [
        Row(tmp_path / "a.png", None, split="train"),
        Row(tmp_path / "test.png", None, split="test"),
        Row(tmp_path / "broken.png", None, split="train"),
    ]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    return tmp_path


def test_the_command_labels_what_is_new_and_names_what_failed(photos: Path) -> None:
    """A matte and an agreement a training photo; exit 1 for the broken one, the rest is kept."""
    command = ["label", "--manifest", str(photos), "--out", str(photos / "out")]
    command += ["--with", "bundled?people=on&size=160", "--size", "64"]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 1
    assert "broken.png" in ended.output
    assert "1 of them labelled (1 anew)" in ended.output
    lines = (photos / "out" / "manifest.jsonl").read_text("utf-8").splitlines()
    first, test, broken = map(json.loads, lines)
    assert "teacher" not in test
    assert "teacher" not in broken
    with Image.open(photos / "out" / first["teacher"]) as matte:
        assert matte.mode == "L"
        assert matte.size == (64, 64)
        assert matte.getpixel((28, 16)) > 200  # her face
        assert matte.getpixel((62, 2)) < 60
    assert (photos / "out" / first["teacher_weight"]).is_file()
    assert first["taught_by"][0].startswith("bundled?people=on&size=160 ")
    again = CliRunner().invoke(app, command)
    assert "(0 anew)" in again.output
