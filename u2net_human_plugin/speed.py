"""How long a prediction takes on this machine, and what of the machine lies idle meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any, Literal

CPU = "CPUExecutionProvider"
#: Sides of the picture that is predicted: 1 megapixel.
PICTURE_WH = 1000, 1000
#: The cores count as idle if fewer than this share of them work. Half of them do where each
#: can run two threads, since onnxruntime starts one a physical core.
IDLE_BELOW = 0.45
_RUNS = 3


def finding(active: str, wanted: str) -> tuple[Literal["ok", "note"], str]:
    """The doctor's line on speed: state and text, with seconds, threads, and what lies idle.

    ``active`` is onnxruntime's execution provider in use, ``wanted`` the best one that its
    build offers. Threads are as in rembg: ``OMP_NUM_THREADS`` if that is set, else
    onnxruntime's own choice.
    """
    from PIL import Image

    from .network import load_onnx
    from .options import Options
    from .segmenter import HumanSegmenter
    from .weights import find_weights

    named = os.environ.get("OMP_NUM_THREADS", "")
    network = load_onnx(find_weights(), None, _session_options(named))
    # Not the environment's options: what is wrong with those has a line of its own.
    segmenter = HumanSegmenter(network=network, options=Options(crop="off"))
    seconds, threads = measured(
        lambda: segmenter.mask(Image.linear_gradient("L").resize(PICTURE_WH))
    )
    cores = usable_cores()
    text = f"{seconds:.2f} s for 1 megapixel in one look"
    if active != CPU:
        return "ok", text
    text += f", {threads:.1f} threads at work on {cores} cores"
    gpu = idle_gpu() if wanted == CPU else None  # else its provider has failed, which is said
    if gpu:
        text += f"; {gpu} lies idle: uninstall onnxruntime, then pip install onnxruntime-gpu"
    idle_cores = threads < IDLE_BELOW * cores
    if idle_cores and named.isdecimal():
        text += f"; OMP_NUM_THREADS={named:.20} allows rembg no more: unset it"
    elif idle_cores and _load() > cores:
        text += "; other programs keep them busy"
    elif idle_cores:
        text += "; the others are withheld, as by a container's limit"
    return "note" if gpu or idle_cores else "ok", text


def measured(predict: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the fastest of three calls after a first one, and threads that were busy.

    The latter is the processor's time by the clock's, which counts what really ran.
    """
    predict()
    runs = []
    for _ in range(_RUNS):
        clock, processor = time.perf_counter(), time.process_time()
        predict()
        seconds = time.perf_counter() - clock
        runs.append((seconds, (time.process_time() - processor) / seconds))
    return min(runs)


def usable_cores() -> int:
    """Cores on which this process may run, by taskset and the like; 1 or more."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def idle_gpu() -> str | None:
    """The name of an NVIDIA GPU of this machine, asked of its driver; None without one."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own program
            query, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = done.stdout.strip().splitlines() if done.returncode == 0 else []
    return f"{names[0]:.60}" if names else None


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # not on Windows


def _session_options(threads: str) -> Any:
    if not threads.isdecimal():
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = int(threads)
    return options
