"""A frozen application: PyInstaller's hook brings the adapters and the weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

APPLICATION = """
import u2net_human_plugin
u2net_human_plugin.register()
from PIL import Image
from rembg import new_session, remove
print(remove(Image.new("RGB", (64, 48), "red"), session=new_session("u2net_human_ft")).size)
"""


@pytest.mark.slow
def test_a_one_folder_application_has_the_model(tmp_path: Path) -> None:
    """Built with what rembg itself needs and nothing more, it cuts out a picture."""
    pytest.importorskip("PyInstaller", reason="needs PyInstaller")
    script = tmp_path / "app.py"
    script.write_text(APPLICATION)
    of_rembg = ["--copy-metadata=pymatting", "--copy-metadata=rembg", "--collect-submodules=rembg"]
    heavy = ("cv2", "matplotlib", "torch", "torchvision", "ultralytics")  # not this application's
    excluded = [f"--exclude-module={name}" for name in heavy]
    builder = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=ERROR"]
    subprocess.run([*builder, *of_rembg, *excluded, script], check=True, cwd=tmp_path)
    done = subprocess.run(
        [tmp_path / "dist" / "app" / "app"],
        cwd=tmp_path,
        # Compiling what rembg imports, which a frozen application cannot cache, takes minutes.
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(64, 48)"
