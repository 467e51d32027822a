"""The trainer as a user runs it, on a small scale: its command line, and what it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SMALL = ("--size", "32", "--batch-size", "2", "--save-every", "1", "--device", "cpu")


QUICK = ("--epochs", "1", "--epoch-size", "12", "--validation-pictures", "2", "--warmup", "2")


def command(data: Path, out: Path, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "u2net_human_plugin.finetune", "train"),
        *("--manifest", str(data), "--out", str(out)),
        *SMALL,
        *options,
    ]


def run(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    settings = {"capture_output": True, "text": True, "timeout": 600} | options
    return subprocess.run(arguments, check=False, **settings)  # type: ignore[call-overload,no-any-return]


def losses(out: Path, name: str = "last") -> list[float]:
    values: list[float] = json.loads((out / f"{name}.json").read_text())["losses"]
    return values
