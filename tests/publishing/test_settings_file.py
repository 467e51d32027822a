"""Settings put into files: nothing else changes, and checksums follow."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import onnx
import pytest
from places import LITE, bundled_size

from u2net_human_plugin import weights
from u2net_human_plugin.errors import WeightsError
from u2net_human_plugin.finetune.files import file_sha256
from u2net_human_plugin.finetune.publishing import settings_file, weight_set
from u2net_human_plugin.finetune.publishing.settings_file import export_settings, store_settings
from u2net_human_plugin.network import OnnxNetwork
from u2net_human_plugin.settings import Settings, stored_settings
from u2net_human_plugin.weights import WeightsFile, bundled

#: What the bundled file, whose copies the tests change, fixes.
SIZE = bundled_size()
OTHER = Settings(size=SIZE, haze=0.05, floor=0.7, licence="CC0-1.0")
NAME = weights.MODEL_NAME


@pytest.fixture
def file(tmp_path):
    """A copy of the bundled ONNX file."""
    return shutil.copy(bundled().path, tmp_path / "mine.onnx")


def test_an_onnx_file_answers_as_before(file):
    """Its settings are new; its answers, and what else its metadata says, are the same."""
    store_settings(file, Settings(floor=0.8))
    store_settings(file, OTHER)  # takes the place of the former
    assert stored_settings(file) == OTHER
    before, after = onnx.load(bundled().path), onnx.load(file)
    kept = [entry for entry in after.metadata_props if entry.key != "settings"]
    assert len(after.metadata_props) == len(kept) + 1
    assert kept == [entry for entry in before.metadata_props if entry.key != "settings"]
    assert after.graph == before.graph
    batch = np.random.default_rng(0).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    old, new = OnnxNetwork(bundled()), OnnxNetwork(WeightsFile(file, "given"))
    assert (old(batch) == new(batch)).all()
    assert new.settings == OTHER


def test_the_size_that_the_file_fixes_is_stored(file):
    """Whatever the settings say of it."""
    store_settings(file, Settings(size=320, floor=0.7))
    assert stored_settings(file) == Settings(size=SIZE, floor=0.7)


def test_a_checksum_beside_the_file_follows(file):
    """A set as `export` writes it stays a whole one, with the rest of its record."""
    record = {"name": "mine", "settings": asdict(Settings()), "training": {"steps": 3}}
    description = weight_set.install(file.parent, "mine", {"onnx": file}, record)
    store_settings(file, OTHER)
    content = json.loads(description.read_text("utf-8"))
    assert content["sha256"] == {"onnx": file_sha256(file)}
    assert content["training"] == {"steps": 3}
    assert content["settings"] == asdict(OTHER)
    assert stored_settings(file) == OTHER
    assert sorted(path.name for path in file.parent.iterdir()) == ["mine.json", "mine.onnx"]


def test_the_bundled_files_provenance_follows(file, tmp_path, monkeypatch):
    """Its checksum is in a third place."""
    package = tmp_path / "checkout" / "package"
    weight_set.install(package / "weights", NAME, {"onnx": file}, {"name": NAME})
    story = package.parent / settings_file.PROVENANCE
    story.parent.mkdir()
    story.write_text(json.dumps({"a": {"parents": []}, NAME: {"sha256": {"onnx": "old"}}}))
    monkeypatch.setattr(weights, "_BUNDLED", package / "weights")
    monkeypatch.setattr(settings_file.u2net_human_plugin, "__file__", str(package / "__init__.py"))
    store_settings(package / "weights" / f"{NAME}.onnx", OTHER)
    records = json.loads(story.read_text("utf-8"))
    assert records[NAME]["sha256"] == {"onnx": bundled().sha256}
    assert records[NAME]["settings"] == asdict(OTHER)
    assert OnnxNetwork(bundled()).settings == OTHER  # the checksum is right


def test_a_checkpoints_twin_keeps_what_else_it_says(tmp_path):
    """And it is made where there is none."""
    checkpoint, twin = tmp_path / "run.pth", tmp_path / "run.json"
    shutil.copy(LITE, checkpoint)
    store_settings(checkpoint, Settings())
    twin.write_text(json.dumps({"step": 3, **json.loads(twin.read_text())}))
    store_settings(checkpoint, OTHER)
    assert json.loads(twin.read_text("utf-8")) == {"step": 3, "settings": asdict(OTHER)}
    assert export_settings(checkpoint, None, None) == OTHER
    assert export_settings(checkpoint, 320, "mine") == Settings(
        size=320, haze=0.05, floor=0.7, licence="mine"
    )


def test_what_is_no_weights_file_is_left_alone(tmp_path):
    """A missing one, and a photo by that name."""
    with pytest.raises(WeightsError, match=r"gone\.onnx: no such file"):
        store_settings(tmp_path / "gone.onnx", OTHER)
    photo = tmp_path / "photo.onnx"
    photo.write_bytes(b"\xff\xd8\xff\xe0 a photo")
    with pytest.raises(WeightsError, match=r"photo\.onnx: not an ONNX file"):
        store_settings(photo, OTHER)
    assert photo.read_bytes() == b"\xff\xd8\xff\xe0 a photo"
