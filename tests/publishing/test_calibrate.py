"""`python -m finetune calibrate`: held-back pictures in, thresholds in the file out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from red import red_network, red_pictures
from typer.testing import CliRunner

from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.settings import Settings, stored_settings

PEOPLE, THINGS = [0.85, 0.87, 0.9, 0.92], [0.2, 0.4, 0.55, 0.6]


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def marked(file, picture):
    return bool((np.asarray(HumanSegmenter(file).mask(Image.open(picture))) >= 128).any())


def test_what_is_chosen_is_stored_and_obeyed(tmp_path):
    """People whom the file lost before are in its masks; test rows, here broken, are not read."""
    file = red_network(tmp_path / "red.onnx")
    manifest = red_pictures(tmp_path, PEOPLE, THINGS)
    assert not marked(file, tmp_path / "0.png")
    out = tmp_path / "reports" / "report.json"
    ended = run(file, "--manifest", manifest, "--out", out, "--write", file)
    assert ended.exit_code == 0, ended.output
    assert "8 held-back pictures, 4 of them empty scenes" in ended.output
    assert "| **0.7** | 0 | 0 | 1.000 |" in ended.output
    assert "| (0.95) | 4 | 0 | 1.000 |" in ended.output
    report = json.loads(out.read_text("utf-8"))
    assert report["chosen"]["floor"] == 0.7
    assert report["before"]["floor"] == Settings().floor
    assert sorted(report["tables"]) == ["floor", "haze", "sure"]
    assert report["failures"] == []
    assert stored_settings(file) == Settings(**report["chosen"])
    assert marked(file, tmp_path / "0.png")
    assert not marked(file, tmp_path / "7.png")


def test_without_write_the_file_stays_as_it_is(tmp_path):
    """And one threshold can be asked for alone, also one that makes the network look anew."""
    file = red_network(tmp_path / "red.onnx")
    content = file.read_bytes()
    manifest = red_pictures(tmp_path, PEOPLE, THINGS)
    out = tmp_path / "report.json"
    ended = run(file, "--manifest", manifest, "--out", out, "--threshold", "margin")
    assert ended.exit_code == 0, ended.output
    assert list(json.loads(out.read_text("utf-8"))["tables"]) == ["margin"]
    assert file.read_bytes() == content


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    """The others are used, and the exit status is 1."""
    file = red_network(tmp_path / "red.onnx")
    manifest = red_pictures(tmp_path, PEOPLE, THINGS)
    (tmp_path / "2.png").write_bytes(b"no picture")
    ended = run(file, "--manifest", manifest, "--out", tmp_path / "report.json")
    assert ended.exit_code == 1
    assert "7 held-back pictures, 4 of them empty" in ended.output
    assert "failed: " in ended.output
    assert "2.png" in ended.output


@pytest.mark.parametrize(
    ("people", "things", "option", "says"),
    [
        (PEOPLE, [], [], "4 show people and 0 are empty scenes"),
        ([], THINGS, [], "0 show people and 4 are empty scenes"),
        ([], [], [], "Test pictures are not used"),
        (PEOPLE, THINGS, ["--threshold", "flor"], "expected one of haze, sure, floor"),
    ],
)
def test_what_cannot_be_fitted_is_told(people, things, option, says, tmp_path):
    """Before anything is computed or written."""
    file = red_network(tmp_path / "red.onnx")
    manifest = red_pictures(tmp_path, people, things)
    ended = run(file, "--manifest", manifest, "--out", tmp_path / "report.json", *option)
    assert ended.exit_code == 1
    assert says in ended.output
    assert not (tmp_path / "report.json").exists()
