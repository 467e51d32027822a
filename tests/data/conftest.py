"""Fixtures of the tests of data sets."""

from __future__ import annotations

import pytest
import typer
from pictures import PLAIN, Prepare
from typer.testing import CliRunner, Result

from u2net_human_plugin.finetune.data import prepare as prepare_module


@pytest.fixture
def prepare() -> Prepare:
    """Run the command in this process."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(prepare_module.prepare)

    def run(*arguments: object, code: int = 0, plain: bool = True) -> Result:
        texts = [str(argument) for argument in (*arguments, *(PLAIN if plain else ()))]
        result = CliRunner().invoke(app, texts)
        assert result.exit_code == code, result.output
        return result

    return run
