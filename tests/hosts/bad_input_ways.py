"""Sends every file of a folder through one way into the model, in one process.

``python tests/bad_input_ways.py WAY FOLDER OUTPUTS REPORT`` appends one JSON line per file
to REPORT, before the next file is begun: a crash shows in the line that is missing. Needs
the package installed, because the hosts get the model through its start-up hook.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

#: Processes one file: its path, and where the cut-out may be written.
Way = Callable[[Path, Path], None]

MODEL = "u2net_human_ft"


def segmenter() -> tuple[Way, Way | None]:
    """For comparison, Pillow alone."""
    import numpy as np

    from u2net_human_plugin import HumanSegmenter, Options

    model = HumanSegmenter()
    options = itertools.cycle(
        (
            Options(),
            Options(crop="self", refine="on"),
            Options(crop="self", persons="largest"),
            Options(persons="all", min_person=0.1),
        )
    )

    def process(file: Path, output: Path) -> None:
        with Image.open(file) as image, np.errstate(divide="raise", invalid="raise", over="raise"):
            chosen = next(options)
            alpha = model.alpha(image, chosen)
            assert alpha.dtype == np.float32
            assert alpha.shape == image.size[::-1]
            assert np.isfinite(alpha).all()
            assert 0 <= alpha.min() <= alpha.max() <= 1
            model.mask(image, chosen).save(output)

    def host(file: Path, _output: Path) -> None:
        with Image.open(file) as image:
            image.load()

    return process, host


def rembg_i() -> tuple[Way, Way | None]:
    """The host's own model for comparison is there if ``U2NET_HOME`` holds its weights."""
    import rembg

    # Not from rembg.cli, which older versions run when it is imported.
    from rembg.commands.i_command import i_command

    def process(file: Path, output: Path) -> None:
        i_command(["-m", MODEL, str(file), str(output)], standalone_mode=False)

    if "U2NET_HOME" not in os.environ:
        return process, None
    session = rembg.new_session("u2netp")

    def host(file: Path, _output: Path) -> None:
        rembg.remove(file.read_bytes(), session=session)

    return process, host


def transparent_background() -> tuple[Way, Way | None]:
    """For comparison, what the host itself does with a file before its network sees it."""
    from transparent_background.utils import ImageLoader, get_format

    command = sys.modules["transparent_background.Remover"].console

    def process(file: Path, output: Path) -> None:
        # The host names its outputs itself.
        sys.argv = ["transparent-background", "-m", MODEL, "--source", str(file)]
        sys.argv += ["--dest", str(output.with_suffix(""))]
        command()

    def host(file: Path, _output: Path) -> None:
        assert get_format([str(file)]) == "Image"
        image, _name = next(iter(ImageLoader(str(file))))
        assert min(image.size) >= 2, "the host's process() fails on one pixel"

    return process, host


WAYS = {
    "segmenter": segmenter,
    "rembg-i": rembg_i,
    "transparent-background": transparent_background,
}


@dataclasses.dataclass
class Outcome:
    """What became of one file."""

    file: str
    #: "Type: message" of the exception, or None.
    error: str | None
    #: The exception of the host without our model, asked for where ours failed.
    host_error: str | None
    seconds: float
    #: What was printed on the way.
    said: str


def attempt(way: Way, file: Path, output: Path) -> str | None:
    try:
        way(file, output)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is what is asked for
        return f"{type(error).__name__}: {error}"
    return None


def main(name: str, folder: Path, outputs: Path, report: Path) -> None:
    outputs.mkdir(parents=True, exist_ok=True)
    way, host = WAYS[name]()
    with report.open("a") as lines:
        for file in sorted(folder.iterdir()):
            said = io.StringIO()
            start = time.monotonic()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                error = attempt(way, file, outputs / f"{file.name}.png")
            seconds = time.monotonic() - start
            host_error = attempt(host, file, outputs / "of the host") if error and host else None
            outcome = Outcome(file.name, error, host_error, seconds, said.getvalue())
            print(json.dumps(dataclasses.asdict(outcome)), file=lines, flush=True)


def read_report(report: Path) -> dict[str, Outcome]:
    lines = report.read_text().splitlines()
    outcomes = [Outcome(**json.loads(line)) for line in lines]
    return {outcome.file: outcome for outcome in outcomes}


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
