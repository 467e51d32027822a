"""python -m finetune benchmark plugin: what the plugin costs, beside rembg's own u2netp.

Both run the same weights, the official U²-Netp; for the plugin they are exported with the half
decoder, as the bundled file is. The bundled weights are measured as well. What is compared is
measured in turn in one run, so that a busy machine slows all sides.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

import u2net_human_plugin
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.preprocess import REMBG_SIZE, SIZE
from u2net_human_plugin.settings import Settings
from u2net_human_plugin.weights import (
    ENVIRONMENT_VARIABLE,
    MODEL_NAME,
    bundled,
    model_directory_files,
)

from ..files import write_text
from .interpreter_start import measure_start
from .pipeline import pipeline_sha256

#: Width and height of the pictures that are timed.
SIZES = {
    "1 megapixel": (1154, 866),
    "12 megapixels": (4000, 3000),
    "48 megapixels": (8000, 6000),
}


def plugin(
    u2netp: Annotated[
        Path | None,
        typer.Option(help="the official u2netp.onnx  [default: in rembg's model directory]"),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="compare the masks as well, on a split of this manifest")
    ] = None,
    split: Annotated[str, typer.Option(help="the manifest's split")] = "test",
    limit: Annotated[int | None, typer.Option(help="at most this many of its pictures")] = None,
    rounds: Annotated[int, typer.Option(help="how many times each is timed")] = 7,
    calls: Annotated[
        int, typer.Option(help="calls over which the growth of memory is measured")
    ] = 1000,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the figures to this file as well")
    ] = None,
) -> None:
    """Start-up, speed and memory of the plugin, beside rembg's own u2netp."""
    version = u2net_human_plugin.__version__
    figures: dict[str, Any] = {
        "version": version,
        "pipeline_sha256": pipeline_sha256(),
        "weights_sha256": bundled().sha256,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
        if hasattr(os, "sched_getaffinity")
        else f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(f"u2net-human-plugin {version}, Python {figures['python']}, {figures['machine']}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures["start"] = measure_start(folder)
        environment, macs = _prepared(u2netp, folder)
        figures["predict"] = _worker(environment, "predict", rounds, macs)
        figures["peak_memory_mb"] = _peak_memory(environment)
        if manifest:
            arguments = (manifest.resolve(), split, limit or 0)
            figures["masks"] = {
                name: _worker(weights, "masks", name, *arguments)
                for name, weights in (
                    ("official", environment),
                    ("bundled", _bundled_on_both_sides(environment, folder)),
                )
            }
        figures["endurance"] = _worker(environment, "endurance", calls)
        if find_spec("transparent_background"):
            figures["transparent_background"] = _worker(
                environment, "transparent_background", rounds
            )
    if json_file:
        write_text(json_file, json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


def _prepared(u2netp: Path | None, folder: Path) -> tuple[dict[str, str], int]:
    """Let both sides use the official weights.

    Returns:
        The environment variables for it, and how many multiply-accumulates (MACs) the network
        needs for one picture.

    Raises:
        DataError: there is no official U²-Netp to be found.
    """
    official = u2netp or _in_model_directory()
    if official is None or not official.is_file():
        raise DataError(
            f"{official or 'u2netp.onnx'}: no such file; name the official U²-Netp with "
            "--u2netp, or let rembg download it: rembg d u2netp"
        )
    home = folder / "home"
    home.mkdir()
    shutil.copy(official, home / "u2netp.onnx")
    ours = folder / "ours.onnx"
    macs = _export(official, ours, SIZE)
    print("weights         the official U²-Netp on both sides, ours with the half decoder")
    # OpenBLAS chooses the best kernel of this machine, unless these variables name another one.
    unwanted = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "U2NET_HUMAN_PLUGIN")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "U2NET_HOME": str(home), ENVIRONMENT_VARIABLE: str(ours)}, macs


def _export(checkpoint: Path, target: Path, size: int) -> int:
    """Export a network with the half decoder; return its MACs for one picture.

    Of an ensemble, the last member is exported.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from u2net_human_plugin.checkpoint import load_network
    from u2net_human_plugin.u2net import Ensemble

    from ..publishing.onnx_file import write_onnx

    model = load_network(checkpoint)
    if isinstance(model, Ensemble):  # its members need several sizes; rembg's session has one
        model = model.members[-1].network
    model.decoder = "half"
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size))
    write_onnx(model, target, Settings(size=size))
    return int(counter.get_total_flops()) // 2


def _bundled_on_both_sides(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """Let rembg's u2netp session run the bundled weights as well; return the variables for it.

    Both sides run them at the size of rembg's own model.
    """
    home = folder / "bundled"
    home.mkdir()
    weights = home / "u2netp.onnx"
    _export(bundled().path, weights, REMBG_SIZE)
    disguised = {"U2NET_HOME": str(home), "MODEL_CHECKSUM_DISABLED": "1"}
    return {**environment, **disguised, ENVIRONMENT_VARIABLE: str(weights)}


def _in_model_directory() -> Path | None:
    new, old = model_directory_files()
    places = (new.parent.parent / "u2netp" / "u2netp.onnx", old.with_name("u2netp.onnx"))
    return next((path for path in places if path.is_file()), None)


def _peak_memory(environment: dict[str, str]) -> dict[str, dict[str, float]]:
    """Peak resident memory of a process that makes one prediction, in MB, for each size."""
    own_weights = {
        name: value for name, value in environment.items() if name != ENVIRONMENT_VARIABLE
    }
    result: dict[str, dict[str, float]] = {}
    for label in SIZES:
        peaks = {
            name: float(_worker(variables, "peak", model, label, quiet=True))
            for name, model, variables in (
                ("u2netp", "u2netp", environment),
                ("ours", MODEL_NAME, environment),
                ("bundled", MODEL_NAME, own_weights),
            )
        }
        print(
            f"peak memory     {label}: {peaks['ours']:.0f} MB, rembg's u2netp "
            f"{peaks['u2netp']:.0f} MB; the bundled weights {peaks['bundled']:.0f} MB"
        )
        result[label] = peaks
    return result


def _worker(environment: dict[str, str], name: str, *arguments: object, quiet: bool = False) -> Any:
    """Run a measurement of :mod:`.plugin_measurements` in its own process; return its result."""
    command = [sys.executable, "-m", f"{__package__}.plugin_measurements", name]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        subprocess.run(  # noqa: S603 - our own interpreter and module
            [*command, str(result), *map(str, arguments)],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL if quiet else None,
        )
        return json.loads(result.read_text("utf-8"))
