"""PyInstaller's hooks, found by the entry point ``pyinstaller40``."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Where PyInstaller finds the hooks."""
    return [str(Path(__file__).parent)]
