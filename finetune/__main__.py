"""The command line: python -m finetune COMMAND."""

from __future__ import annotations

import errno
import io
import sys

import typer

from u2net_human_plugin.errors import PluginError

from .benchmarks.batch import batch
from .benchmarks.plugin import plugin
from .benchmarks.server import server
from .benchmarks.training import training
from .data.complete import complete
from .data.label import label
from .data.prepare import prepare
from .evaluation.evaluate import evaluate
from .evaluation.hair import hair
from .evaluation.mattes import mattes
from .evaluation.run_report import report
from .publishing.calibrate import calibrate
from .publishing.card import card
from .publishing.export import export
from .training.compose import compose
from .training.ensemble import ensemble
from .training.interpolate import interpolate
from .training.train import train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100},
    # Rich takes "[default: …]" in a help text for its markup, and cuts what a panel cannot hold.
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Fine-tune U²-Net on people.

    The way: prepare → complete → label → train → evaluate → calibrate → export. Beside it: compose
    (scenes of people put together), interpolate (between two weights), ensemble (several networks
    as one), report (a run's curves), hair (pictures whose alpha is known exactly), mattes (ways to
    cut people out, compared on them), card (the model card), benchmark (what things cost).
    """


app.command()(prepare)
app.command()(complete)
app.command()(label)
app.command()(train)
app.command()(interpolate)
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
benchmark.command()(batch)
benchmark.command()(server)
benchmark.command()(training)
app.add_typer(benchmark, name="benchmark")


def main() -> None:
    """Run the command line; what a user can put right is a line, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that it cannot show must not end a command that has done its work.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except PluginError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        # One that names no file, but for a full disk, is a defect of the program's.
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
