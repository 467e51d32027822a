"""`compose`: composites with exact masks, in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.data.manifest import read_manifest


def test_composed_pictures_are_as_asked(data: Path, tmp_path: Path) -> None:
    """compose --heights --side --source: small people of that source alone, in large pictures."""
    options = ["--heights", "0.1-0.2", "--side", "300", "--count", "4", "--empty", "1"]
    inputs = ["--manifest", str(data), "--split", "train", "--source", "made"]
    done = CliRunner().invoke(app, ["compose", *inputs, "--out", str(tmp_path), *options])
    assert done.exit_code == 0, done.output
    rows = read_manifest(tmp_path)
    assert [row.extra["persons"] > 0 for row in rows] == [True] * 4 + [False]
    for row in rows:
        with Image.open(row.image) as image:
            assert max(image.size) == 300
    # Half-length people are not among these; a figure turned aslant is a little higher.
    assert all(row.extra["person_height"] <= 0.3 for row in rows)
    nobody = CliRunner().invoke(app, ["compose", *inputs[:-1], "x", "--out", str(tmp_path / "x")])
    assert nobody.exit_code == 1
    wrong = CliRunner().invoke(app, ["compose", *inputs, "--out", "x", "--heights", "0.3-0.1"])
    assert wrong.exit_code == 2


@pytest.mark.parametrize(("beside", "colour"), [("1", (0, 0, 255)), ("0", (255, 255, 0))])
def test_composed_scenes_from_beside_people(
    tmp_path: Path, beside: str, colour: tuple[int, int, int]
) -> None:
    """--beside 1: every scene is the blue street of the photo, none the yellow scene."""
    photo, mask = Image.new("RGB", (500, 200), (0, 0, 255)), Image.new("1", (500, 200))
    photo.paste((255, 0, 0), (240, 40, 280, 200))
    mask.paste(1, (240, 40, 280, 200))
    photo.save(tmp_path / "photo.png")
    mask.save(tmp_path / "mask.png")
    Image.new("RGB", (500, 200), (255, 255, 0)).save(tmp_path / "scene.png")
    known = {"source": "made", "split": "val", "licence": "CC0-1.0"}
    rows = [
        {
            "image": "photo.png",
            "mask": "mask.png",
            "boxes": [[240, 40, 280, 200, 0.9]],
            "detector": "yolo",
            **known,
        },
        {"image": "scene.png", "mask": None, **known},
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--count", "0", "--empty", "12", "--beside", beside, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["compose", "--manifest", str(manifest), *options])
    assert done.exit_code == 0, done.output
    common = []
    for row in read_manifest(tmp_path / "out"):
        with Image.open(row.image) as image:
            common.append(max(image.getcolors(image.width * image.height))[1])
    # The others are plain backdrops, or covered by things.
    assert common.count(colour) >= 4
    assert common.count((255, 255, 0) if colour == (0, 0, 255) else (0, 0, 255)) == 0
