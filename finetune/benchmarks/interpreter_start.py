"""What the plugin's start-up hook adds to the start of every interpreter."""

from __future__ import annotations

import compileall
import os
import shutil
import statistics
import subprocess
import time
import venv
from pathlib import Path
from typing import Any

import u2net_human_plugin

#: How many times each interpreter is started.
_STARTS = 101
#: Modules whose import would slow an interpreter's start.
_HEAVY = ("PIL", "numpy", "onnxruntime", "rembg", "torch", "transparent_background", "ultralytics")


def measure_start(folder: Path) -> dict[str, Any]:
    """Time the start of a bare interpreter, with and without the plugin, in turn.

    Args:
        folder: where two virtual environments are made.

    Returns:
        Milliseconds: ``without_ms`` and ``with_ms``, medians; ``added_ms`` and
        ``added_processor_ms``, medians of the differences of each pair, in wall-clock and in
        processor time. ``modules``: names of the modules that are imported only with the plugin.
        ``heavy_modules``: names of imported modules that make a start slow; there should be none.
    """
    pythons = [make_environment(folder / "without", False), make_environment(folder / "with", True)]
    seconds: list[list[float]] = [[], []]
    processor: list[list[float]] = [[], []]
    for _ in range(_STARTS):
        for number, python in enumerate(pythons):
            used, began = _processor_seconds(), time.perf_counter()
            subprocess.run([python, "-c", "pass"], check=True)  # noqa: S603 - our own
            seconds[number].append(time.perf_counter() - began)
            processor[number].append(_processor_seconds() - used)
    without, with_plugin = (statistics.median(times) * 1e3 for times in seconds)
    added, added_processor = (
        statistics.median(b - a for a, b in zip(*times, strict=True)) * 1e3
        for times in (seconds, processor)
    )
    modules = [imported_modules(python) for python in pythons]
    new = sorted(modules[1] - modules[0])
    heavy = sorted(set(_HEAVY) & modules[1])
    print(
        f"start-up        {without:.2f} ms without, {with_plugin:.2f} ms with the plugin "
        f"(medians of {_STARTS}); paired difference {added:+.2f} ms, "
        f"{added_processor:+.2f} ms of processor time\n"
        f"                modules added: {', '.join(new)}; heavy ones: {', '.join(heavy) or 'none'}"
    )
    return {
        "without_ms": without,
        "with_ms": with_plugin,
        "added_ms": added,
        "added_processor_ms": added_processor,
        "modules": new,
        "heavy_modules": heavy,
    }


def _processor_seconds() -> float:
    """Processor time of all finished child processes, in seconds; 0 on Windows.

    It varies less than wall-clock time.
    """
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_environment(folder: Path, with_plugin: bool) -> Path:
    """Make a virtual environment, empty or with the plugin alone; return its interpreter.

    The plugin's files lie where its wheel would put them.
    """
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    packages = next(folder.glob("[Ll]ib*/**/site-packages"))
    package = Path(u2net_human_plugin.__file__).parent
    if with_plugin:
        leave_out = shutil.ignore_patterns("weights", "finetune", "__pycache__")
        shutil.copytree(package, packages / package.name, ignore=leave_out)
        line = f"import {package.name}._startup; {package.name}._startup.install()\n"
        (packages / f"{package.name}.pth").write_text(line)
        compileall.compile_dir(packages, quiet=1)  # as pip does at installation
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def imported_modules(python: Path) -> set[str]:
    """Names of the modules that a bare start of this interpreter imports."""
    code = "import sys; print(*sys.modules)"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603
    return set(done.stdout.split())
