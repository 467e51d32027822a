"""Fixtures of the tests of data sets."""

from __future__ import annotations

import pytest
from pictures import PLAIN, Prepare
from typer.testing import CliRunner, Result


@pytest.fixture
def prepare() -> Prepare:
    """Run the command in this process."""
    from u2net_human_plugin.finetune.__main__ import app  # not where the extra train is missing

    def run(*arguments: object, code: int = 0, plain: bool = True) -> Result:
        texts = [str(argument) for argument in ("prepare", *arguments, *(PLAIN if plain else ()))]
        result = CliRunner().invoke(app, texts)
        assert result.exit_code == code, result.output
        return result

    return run
