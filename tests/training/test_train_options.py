"""What `train` accepts and refuses before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from u2net_human_plugin.finetune.__main__ import app


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--size", "0"),
        ("--batch-size", "0"),
        ("--epochs", "0"),
        ("--lr", "-1"),
        ("--ema", "2"),
        ("--seed", "-1"),
        ("--side", "-1"),
        ("--remember-weight", "-1"),
        ("--validate-every", "0"),
        ("--save-every", "0"),
        ("--minutes", "-1"),
    ],
)
def test_an_impossible_number_is_refused(option: str, value: str, tmp_path: Path) -> None:
    """The message names the option; nothing is written."""
    arguments = ["train", "--manifest", "none", "--out", str(tmp_path / "run"), option, value]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert option in done.output
    assert not (tmp_path / "run").exists()
