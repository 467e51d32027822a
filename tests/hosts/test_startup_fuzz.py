"""Hosts of every odd kind, made up from seeds; see startup_fuzz."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FUZZ = Path(__file__).with_name("startup_fuzz.py")


@pytest.mark.parametrize("first", [0, 300])
def test_no_host_is_harmed(
    launch: Callable[..., subprocess.CompletedProcess[Any]], first: int
) -> None:
    """300 hosts with missing, renamed and strange names, that raise, vanish or are reloaded.

    Each is what it would be without us, plus the model in all places or in none; what it
    raises arrives; at most one line is written. All three outcomes are common.
    """
    done = launch(FUZZ, str(first), "300")
    assert done.stderr == ""
    assert min(map(int, done.stdout.split())) > 30
