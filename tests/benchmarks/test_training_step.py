"""`benchmark training`, in small."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.process
def test_benchmark_compares_every_loop_with_the_plain_one() -> None:
    """finetune benchmark training --json: a speed for each loop, the plain one's ratio is one."""
    options = ["--size", "64", "--batch", "1", "--steps", "1", "--rounds", "1", "--json"]
    command = (sys.executable, "-m", "u2net_human_plugin.finetune", "benchmark", "training")
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["times_plain"]) == ["plain", "full", "half", "bf16", "data"]
    assert result["times_plain"]["plain"] == 1
    assert min(result["images_per_second"].values()) > 0
