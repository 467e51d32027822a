"""A weights set on disk: ``NAME.onnx``, ``NAME.pth`` and the ``NAME.json`` that describes both.

Three files cannot be renamed in one step, so readers go by the JSON: its checksums state which
contents belong together, and "files", while it is there, under which names they are. After every
step of :func:`install` there is one whole set.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import TEMPORARY, file_sha256, write_text, written_atomically

#: How many digits of the checksum are in an interim file name.
_SHOWN = 12


def install(folder: Path, name: str, files: Mapping[str, Path], record: Mapping[str, Any]) -> Path:
    """Put ``files`` (by suffix: "onnx", "pth") into ``folder`` as the set ``name``.

    A process that is killed at any moment leaves either the old or the new set, whole; the next
    call removes its unfinished files. Returns the path of the JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder, name)
    checksums = {suffix: file_sha256(path) for suffix, path in files.items()}
    # 1. The new contents, under names that nothing refers to yet.
    interim = {
        suffix: f"{name}.{checksum[:_SHOWN]}.{suffix}" for suffix, checksum in checksums.items()
    }
    for suffix, path in files.items():
        _copy(path, folder / interim[suffix])
    # 2. The JSON refers to them: from here on the new set is the valid one.
    content = {**record, "sha256": checksums}
    description = folder / f"{name}.json"
    _write_json(description, {**content, "files": interim})
    # 3. Nothing refers to the usual names now; they get the new contents as well …
    for suffix in files:
        _copy(folder / interim[suffix], folder / f"{name}.{suffix}")
    # 4. … and are what the JSON means when it names no files.
    _write_json(description, content)
    _clear(folder, name)
    return description


def read(folder: Path, name: str) -> dict[str, tuple[Path, str]]:
    """The valid set: path and SHA-256 by suffix; empty if there is none."""
    try:
        content = json.loads((folder / f"{name}.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    named = content.get("files", {})
    return {
        suffix: (folder / named.get(suffix, f"{name}.{suffix}"), checksum)
        for suffix, checksum in content["sha256"].items()
    }


def _clear(folder: Path, name: str) -> None:
    """Remove what a killed call left: temporary files, and files that nothing refers to."""
    valid = {path for path, _ in read(folder, name).values()}
    ours = re.compile(rf"{name}\.[0-9a-f]{{{_SHOWN}}}\.\w+|\.{name}\..*{re.escape(TEMPORARY)}")
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path not in valid:
            path.unlink()


def _copy(source: Path, target: Path) -> None:
    with written_atomically(target) as temporary:
        shutil.copyfile(source, temporary)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
