"""Putting settings into files: an ONNX file's metadata, a checkpoint's JSON twin."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import u2net_human_plugin
from u2net_human_plugin.errors import WeightsError
from u2net_human_plugin.onnx_reader import read_graph
from u2net_human_plugin.settings import KEY, Settings, settings_of, stored_settings
from u2net_human_plugin.weights import MODEL_NAME, bundled

from ..files import file_sha256, write_text, written_atomically
from . import weight_set
from .provenance import PROVENANCE


def export_settings(checkpoint: Path, size: int | None, licence: str | None) -> Settings:
    """The settings for a file made from a checkpoint: those of the checkpoint, else the defaults.

    Args:
        checkpoint: the file; its settings are stored with it.
        size: the side of the input that the network itself fixes; None if it fixes none.
        licence: replaces the licence in the settings.
    """
    settings = settings_of(stored_settings(checkpoint), size)
    return settings if licence is None else replace(settings, licence=licence)


def store_settings(weights: Path, settings: Settings) -> None:
    """Put ``settings`` into an ONNX file, or beside a checkpoint into its JSON twin.

    Nothing else of an ONNX file changes. If a JSON file of the same name holds its checksum, as
    `export` writes it, both are replaced as one; for the bundled file, also the checksum in the
    provenance. If anything cannot be written, the file stays as it was.

    Raises:
        WeightsError: there is no such file, or it is not an ONNX file.
    """
    if not weights.is_file():
        raise WeightsError(f"{weights}: no such file to store settings with.")
    if weights.suffix.lower() != ".onnx":
        twin = weights.with_suffix(".json")
        write_text(twin, _json({**_object(twin), KEY: asdict(settings)}))
        return
    content = _with_settings(weights, settings)
    description = _object(weights.with_suffix(".json"))
    checksums = description.get("sha256")
    if not isinstance(checksums, dict) or checksums.get("onnx") != file_sha256(weights):
        with written_atomically(weights) as temporary:
            temporary.write_bytes(content)
        return
    is_bundled = weights.resolve() == bundled().path.resolve()
    files = {suffix: weights.with_suffix(f".{suffix}") for suffix in checksums}
    with tempfile.TemporaryDirectory(prefix="finetune-settings-") as staging:
        files["onnx"] = Path(staging) / weights.name
        files["onnx"].write_bytes(content)
        checksum = file_sha256(files["onnx"])
        if "settings" in description:
            description["settings"] = asdict(settings)
        weight_set.install(weights.parent, weights.stem, files, description)
    story = Path(u2net_human_plugin.__file__).parents[1] / PROVENANCE
    if is_bundled and story.is_file():
        records = _object(story)
        records[MODEL_NAME]["settings"] = asdict(settings)
        records[MODEL_NAME]["sha256"]["onnx"] = checksum
        write_text(story, _json(records))


def add_settings(proto: Any, settings: Settings) -> None:
    """Put ``settings`` into an ONNX model's metadata, instead of those that are there."""
    kept = {entry.key: entry.value for entry in proto.metadata_props if entry.key != KEY}
    del proto.metadata_props[:]
    for key, value in {**kept, KEY: settings.to_json()}.items():
        proto.metadata_props.add(key=key, value=value)


def _with_settings(weights: Path, settings: Settings) -> bytes:
    import onnx

    content = weights.read_bytes()
    try:
        shape = read_graph(content).input_shape
    except ValueError as error:
        raise WeightsError(f"{weights}: {error}; no settings can be stored in it.") from None
    proto = onnx.load_model_from_string(content)
    add_settings(proto, settings_of(settings, shape[2] or None if len(shape) == 4 else None))
    return bytes(proto.SerializeToString())


def _object(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: no JSON object; correct or remove it.")
    return content


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
