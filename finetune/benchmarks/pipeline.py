"""Which files make a mask: what a benchmark's report holds for, and is outdated without."""

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
    """SHA-256, hexadecimal, of the names and the text of :data:`PIPELINE` in a folder."""
    digest = hashlib.sha256()
    for name in PIPELINE:
        # As text: git may give line ends another form.
        digest.update(f"{name}\0{(folder / f'{name}.py').read_text('utf-8')}\0".encode())
    return digest.hexdigest()
