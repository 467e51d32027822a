"""The files that make a mask. A benchmark's report is outdated when one of them changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import u2net_human_plugin

#: The modules of the plugin that a prediction with default options runs.
PIPELINE = (
    "boxes",
    "closer",
    "hysteresis",
    "looks",
    "network",
    "options",
    "paste",
    "people",
    "preprocess",
    "refine",
    "regions",
    "segmenter",
)


def pipeline_sha256(folder: Path = Path(u2net_human_plugin.__file__).parent) -> str:
    """Return the SHA-256, hexadecimal, of the names and texts of :data:`PIPELINE` in a folder.

    Raises:
        OSError: a module is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for name in PIPELINE:
        # Read as text, because git may change the line ends.
        digest.update(f"{name}\0{(folder / f'{name}.py').read_text('utf-8')}\0".encode())
    return digest.hexdigest()
