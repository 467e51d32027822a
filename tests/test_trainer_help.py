"""What `python -m finetune --help` shows, at any width."""

from __future__ import annotations

import re

import pytest
import typer
from typer.testing import CliRunner

from u2net_human_plugin.finetune.__main__ import app

GROUP = typer.main.get_command(app)
COMMANDS = sorted(
    name
    for name, command in GROUP.commands.items()  # type: ignore[attr-defined]
    if not command.hidden
)


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_top_names_every_command() -> None:
    """The sentence before the list, too: it says which follows which."""
    top = shown().partition("Options")[0]
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", top), name


def test_the_list_of_commands_is_not_cut() -> None:
    """What each does is there to its full stop, wrapped."""
    commands = shown().partition("Commands:")[2]
    assert "..." not in commands
    listed = re.split(r"\n  (?=\w)", commands)[1:]
    assert sorted(entry.split()[0] for entry in listed) == COMMANDS
    assert all(entry.rstrip().endswith(".") for entry in listed)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "benchmark"])
def test_options_are_whole_and_show_their_defaults(name: str) -> None:
    """No option is cut at 80 columns; a default in brackets is no markup."""
    text = shown(name)
    words = " ".join(text.split())
    for parameter in GROUP.commands[name].params:  # type: ignore[attr-defined]
        if getattr(parameter, "hidden", False):
            continue
        for option in parameter.opts:
            assert option in words.split() or not option.startswith("-")
        help_text = " ".join((getattr(parameter, "help", "") or "").split())
        assert help_text in words


def test_defaults_in_brackets() -> None:
    """Those of a number, and those that a help text words itself."""
    words = " ".join(shown("train").split())
    assert "full: train everything. [default: full for full, else half]" in words
    assert "[default: 0.25" in " ".join(shown("prepare").split())
