"""What `train` accepts and refuses before it starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.training.dataset import Mix
from u2net_human_plugin.finetune.training.train import parse_mix


def test_help_tells_the_default_shares() -> None:
    """They stand in the help's text a second time."""
    train_options = typer.main.get_command(app).commands["train"].params
    told = next(option.help for option in train_options if option.name == "mix")
    assert parse_mix([]) == Mix()
    for kind, share in dataclasses.asdict(Mix()).items():
        assert f"{kind}={share:g}" in told


@pytest.mark.parametrize("entry", ["empty", "nobody=1", "empty=-1", "empty=nan", "empty=x"])
def test_a_wrong_share_is_refused(entry: str, tmp_path: Path) -> None:
    """The message quotes it and lists the kinds."""
    arguments = ["train", "--manifest", "x", "--out", str(tmp_path), "--mix", entry]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    words = " ".join(refused.output.replace("│", " ").split())
    assert f"--mix '{entry}': expected KIND=SHARE, the kind one of photo, group," in words


def test_nothing_to_draw_is_refused() -> None:
    """All shares 0."""
    with pytest.raises(typer.BadParameter, match="all shares are 0"):
        parse_mix([f"{kind}=0" for kind in ("photo", "group", "scene", "empty")])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--size", "0"),
        ("--batch", "0"),
        ("--epochs", "0"),
        ("--rate", "-1"),
        ("--ema", "2"),
        ("--seed", "-1"),
        ("--workers", "-1"),
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
