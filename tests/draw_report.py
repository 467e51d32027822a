"""Draws docs/pages/report.webp, README's picture of an evaluation's report.

    python tests/draw_report.py minmax:u2netp.onnx

`hair` makes pictures of what scikit-image brings, whose alpha is known exactly; `evaluate` compares
the model that is named with the bundled one on them; headless Chromium shows the report.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from browser import find_browser

CHECKOUT = Path(__file__).resolve().parent.parent
PICTURE = CHECKOUT / "docs" / "pages" / "report.webp"
#: Of the browser's window, in pixels.
SIZE = "1280,1310"


def draw(before: str, picture: Path, count: int = 24) -> None:
    """Evaluate ``before`` beside the bundled weights, and save what the report looks like."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        trainer = [sys.executable, "-m", "u2net_human_plugin.finetune"]
        made = [*trainer, "hair", "--out", "hair", "--count", str(count), "--side", "480"]
        subprocess.run(made, check=True, cwd=folder)
        model = Path(before.rpartition(":")[2])  # the report is made in another folder
        spec = before.replace(str(model), str(model.absolute())) if model.is_file() else before
        compared = [*trainer, "evaluate", "--manifest", "hair", "--out", "report"]
        compared += ["--before", spec, "--after", "bundled", "--consistency", "0"]
        subprocess.run(compared, check=True, cwd=folder)
        shot = find_browser(folder).screenshot(folder / "report" / "report.html", size=SIZE)
        shot.save(picture, "WEBP", quality=80, method=6)


if __name__ == "__main__":
    draw(sys.argv[1], PICTURE)
