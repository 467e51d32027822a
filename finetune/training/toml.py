"""Reading TOML files that users write."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomlkit

from u2net_human_plugin.errors import DataError


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file, as plain values.

    Raises:
        DataError: there is no such file, or it is not TOML; names the file and the line.
    """
    try:
        content: dict[str, Any] = tomlkit.parse(path.read_text("utf-8")).unwrap()
    except (OSError, ValueError, tomlkit.exceptions.TOMLKitError) as error:
        raise DataError(f"{path}: cannot be read as TOML ({error}).") from None
    return content


def nearest(name: str, known: Iterable[str]) -> str:
    """The name in ``known`` with the most similar spelling."""
    return difflib.get_close_matches(name, list(known), 1, cutoff=0)[0]
