"""The load test that users can run, in small: rembg's real server on loopback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from u2net_human_plugin.finetune.benchmarks.server import objections

SERVER = ("-m", "u2net_human_plugin.finetune", "benchmark", "server")
Launch = Callable[..., "subprocess.CompletedProcess[Any]"]


def test_a_server_under_load(launch: Launch, tmp_path: Path) -> None:
    """Right answers, level memory, extras that cost nothing, no threads left behind."""
    report = tmp_path / "figures.json"
    amount = ("--clients", "16", "--requests", "60", "--extras", "100", "--minutes", "9")
    command = (*SERVER, *amount, "--json", report)
    launch(*command, timeout=600, check=False)
    figures = json.loads(report.read_text())
    assert figures["wrong"] == []
    assert figures["extras_growth"] < 5_000_000
    assert figures["threads_after"] <= figures["threads_before"]
    # The command's own limit is for 500 requests; a dozen do not fill the allocator yet.
    memory = figures["memory_after_each_fifth"]
    assert len(memory) == 5
    assert memory[-1] < 1.3 * memory[0]


def test_too_slow_is_a_failure(launch: Launch) -> None:
    """A test that does not get done within --minutes ends, says so and exits with 1."""
    done = launch(*SERVER, "--minutes", "0.01", check=False)
    assert done.returncode == 1
    assert "rembg s does not answer" in done.stderr or "not finished" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({}, [], id="fine"),
        pytest.param({"wrong": ["96 x 96"]}, ["wrong answers"], id="a wrong mask"),
        pytest.param(
            {"memory_after_each_fifth": [100, 106]}, ["memory does not level off"], id="a leak"
        ),
        pytest.param(
            {"extras_growth": 6_000_000},
            ["sessions for different extras cost memory"],
            id="costly sessions",
        ),
        pytest.param({"threads_after": 6}, ["threads are left behind"], id="a thread"),
    ],
)
def test_what_is_objected_to(change: dict[str, Any], said: list[str]) -> None:
    """Each limit of the test, just crossed."""
    fine = {
        "wrong": [],
        "memory_after_each_fifth": [100, 101],
        "extras_growth": 0,
        "threads_before": 5,
        "threads_after": 5,
    }
    assert objections({**fine, **change}) == said
