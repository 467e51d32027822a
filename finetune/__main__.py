"""The command line: python -m finetune COMMAND."""

from __future__ import annotations

import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from u2net_human_plugin.errors import PluginError

from .benchmarks.batch import batch
from .benchmarks.looks import looks
from .benchmarks.plugin import plugin
from .benchmarks.scale import scale
from .benchmarks.server import server
from .benchmarks.training import training
from .data.complete import complete
from .data.label import label
from .data.prepare import prepare
from .evaluation.evaluate import evaluate
from .evaluation.hair import hair
from .evaluation.mattes import mattes
from .evaluation.run_report import report
from .files import FULL, NO_ROOM
from .publishing.calibrate import calibrate
from .publishing.card import card
from .publishing.export import export
from .training.average import average
from .training.compose import compose
from .training.ensemble import ensemble
from .training.train import train


class _Commands(TyperGroup):
    """Turns errors that a user can correct into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (PluginError, OSError) as error:
            # An OSError without a file is a defect of the program, except for a full disk.
            if isinstance(error, OSError) and error.filename is None and error.errno not in FULL:
                raise
            unnamed = isinstance(error, OSError) and error.filename is None
            typer.echo(f"error: {NO_ROOM if unnamed else error}", err=True)
            # 1 from prepare says that some pictures failed that may succeed the next time.
            raise typer.Exit(2 if ctx.invoked_subcommand == "prepare" else 1) from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """What each does, wrapped where click would cut it."""
        commands = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, one.get_short_help_str(1000)) for name, one in commands if not one.hidden]
            )


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100},
    # Rich would take "[default: …]" in a help text for markup, and cut long texts.
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Fine-tune U²-Net on people.

    The usual order: prepare → complete → label → train → evaluate → calibrate → export. Further
    commands: compose (composites of people and scenes), average (of two weights), ensemble (several
    networks as one), report (a run's curves), hair (pictures whose alpha is known exactly), mattes
    (ways to cut people out, compared on them), card (the model card), benchmark (what things cost).
    """


app.command()(prepare)
app.command()(complete)
app.command()(label)
app.command()(train)
app.command()(average)
app.command("interpolate", hidden=True)(average)  # its name before
app.command()(ensemble)
app.command()(compose)
app.command()(report)
app.command()(evaluate)
app.command()(hair)
app.command()(mattes)
app.command()(calibrate)
app.command()(export)
app.command()(card)

benchmark = typer.Typer(help="What things cost: the plugin, rembg's server, a training step.")
benchmark.command()(plugin)
benchmark.command()(looks)
benchmark.command()(batch)
benchmark.command()(scale)
benchmark.command()(server)
benchmark.command()(training)
app.add_typer(benchmark, name="benchmark")


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that cannot be shown must not end a command that has done its work.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
