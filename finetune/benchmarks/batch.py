"""Photos a second of `rembg p`, of one process of ours, and of `batch` with two actors.

In turn on the same photos, start-up included: that is what somebody with a folder waits for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from u2net_human_plugin.batch.storage import PICTURES
from u2net_human_plugin.errors import DataError

#: Of the processes running a command, the kilobytes of the largest, from Linux' /proc.
_EVERY = 0.5

_ONE_PROCESS = """
import sys
from pathlib import Path
from u2net_human_plugin.batch.actor import CutOut, Recipe
make = CutOut(Recipe())
for file in sorted(Path(sys.argv[1]).iterdir()):
    Path(sys.argv[2], file.stem + ".png").write_bytes(make.cut(file.read_bytes())["cutout"])
"""


def measure(photos: Path, count: int = 200, actors: int = 2) -> dict[str, dict[str, float]]:
    """Of each way: photos a second, seconds, and peak memory of its largest process in MB.

    Args:
        photos: a folder; its first ``count`` pictures are taken, repeated if there are fewer.
        count: how many pictures.
        actors: of `batch`.

    Raises:
        DataError: there is no picture in ``photos``.
    """
    files = sorted(file for file in photos.iterdir() if file.name.lower().endswith(PICTURES))
    if not files:
        raise DataError(f"{photos}: no pictures there.")
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "photos")
        source.mkdir()
        for number in range(count):
            file = files[number % len(files)]
            source.joinpath(f"{number:06}{file.suffix}").write_bytes(file.read_bytes())
        rembg = "import rembg.cli; rembg.cli.main()"
        ways: dict[str, Callable[[str], list[str]]] = {
            "rembg p": lambda out: [python, "-c", rembg, "p", "-m", "u2net_human_ft", *(s, out)],
            "one process": lambda out: [python, "-c", _ONE_PROCESS, s, out],
            f"batch, {actors} actors": lambda out: [
                *(python, "-m", "u2net_human_plugin", "batch", s, out, "--actors", str(actors))
            ],
        }
        s = str(source)
        return {name: _timed(command, Path(folder, name), count) for name, command in ways.items()}


def _timed(command: Callable[[str], list[str]], out: Path, count: int) -> dict[str, float]:
    out.mkdir()
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own commands
        command(str(out)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    largest = 0
    while process.poll() is None:
        largest = max([largest, *map(_peak_kilobytes, _family(process.pid))])
        time.sleep(_EVERY)
    seconds = time.perf_counter() - started
    made = len(list(out.glob("*.png")))
    if made != count:
        raise DataError(f"{out.name}: made {made} of {count} (exit status {process.returncode}).")
    return {"a second": count / seconds, "seconds": seconds, "MB": largest / 1024}


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # ended meanwhile, or no Linux
        return [pid]
    return [pid, *(one for child in children for one in _family(int(child)))]


def _peak_kilobytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def batch(
    photos: Annotated[Path, typer.Argument(help="A folder of photos.")],
    count: Annotated[int, typer.Option(min=1, help="How many, repeated if there are fewer.")] = 200,
    actors: Annotated[int, typer.Option(min=1, help="Processes of `batch`.")] = 2,
) -> None:
    """Photos a second: `rembg p`, one process of ours, `batch` with several actors."""
    typer.echo(f"{count} photos of {photos}, {os.cpu_count()} cores")
    for name, row in measure(photos, count, actors).items():
        typer.echo(
            f"{name:<20}{row['a second']:8.2f} a second{row['MB']:8.0f} MB of the largest process"
        )
