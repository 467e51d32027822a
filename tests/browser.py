"""A real browser without a window, for tests of what a page shows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Browser:
    """Headless Chromium with a profile of its own, cut off from any network."""

    def __init__(self, program: str, folder: Path) -> None:
        self._command = [
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder / 'profile'}"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=3000"),
        ]
        self._folder = folder

    def dom(self, page: Path, fragment: str = "") -> str:
        """The page's elements after its scripts have run."""
        return self._run("--dump-dom", page.as_uri() + fragment)

    def screenshot(self, page: Path, fragment: str = "", size: str = "1280,1600") -> Image.Image:
        file = self._folder / "screenshot.png"
        self._run(f"--window-size={size}", f"--screenshot={file}", page.as_uri() + fragment)
        with Image.open(file) as image:
            return image.convert("RGB")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments], check=True, capture_output=True, text=True, timeout=240
        )
        return done.stdout


def find_browser(folder: Path) -> Browser:
    """Skips the test where there is none."""
    for name in NAMES:
        if program := shutil.which(name):
            return Browser(program, folder)
    pytest.skip(f"needs a browser: one of {', '.join(NAMES)}")
