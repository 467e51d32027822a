"""What a picture costs in transparent-background: our mode beside the host's mode "fast".

``python -m finetune benchmark plugin`` runs :func:`measure`. The host's network gets random
weights, so that nothing is downloaded; its time does not depend on the weights.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from u2net_human_plugin.network import load_onnx, load_torch
from u2net_human_plugin.weights import MODEL_NAME, bundled

from .plugin import SIZES


def measure(rounds: int) -> dict[str, Any]:
    """Time ``Remover.process`` in both modes, and our network in both runtimes, in turn.

    Everything runs on the CPU.

    Args:
        rounds: how many times each is timed, after one time that does not count.

    Returns:
        For each of :data:`~.plugin.SIZES`: ``fast_ms`` and ``ours_ms``, median milliseconds of a
        picture, and ``fast_to_ours``, the median over the rounds of their ratio. Under
        ``network``, the same for one input of our network: ``torch_ms``, ``torchscript_ms`` and
        ``onnxruntime_ms``, and the ratios to onnxruntime's.

    Raises:
        ImportError: transparent-background is not installed.
        MissingExtraError: onnxruntime is not installed.
    """
    ours, theirs = _removers()
    figures: dict[str, Any] = {}
    for label, size_wh in SIZES.items():
        noise = np.random.default_rng(0).integers(0, 256, (31, 41, 3), np.uint8)
        picture = Image.fromarray(noise).resize(size_wh)
        figures[label] = _in_turn(
            rounds,
            fast=partial(theirs.process, picture, type="map"),
            ours=partial(ours.process, picture, type="map"),
        )
        _say(f"process {label}", figures[label], "fast", "ours")

    by_onnxruntime = load_onnx(bundled(), ["CPUExecutionProvider"])
    size = by_onnxruntime.settings.size
    batch = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
    by_torch = load_torch(bundled())
    traced = load_torch(bundled(), traced=True)
    figures["network"] = _in_turn(
        rounds,
        torch=lambda: by_torch(batch),
        torchscript=lambda: traced(batch),
        onnxruntime=lambda: by_onnxruntime(batch),
    )
    _say("network", figures["network"], "torch", "onnxruntime")
    _say("network, --jit", figures["network"], "torchscript", "onnxruntime")
    return figures


def _removers() -> tuple[Any, Any]:
    """A ``Remover`` in our mode and one in the host's mode "fast", with random weights."""
    import torch
    from transparent_background import Remover

    from u2net_human_plugin.hosts import register

    register()
    host = sys.modules["transparent_background.Remover"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRANSPARENT_BACKGROUND_FILE_PATH"] = folder  # the host's configuration file
        checkpoint = Path(folder, "random.pth")
        network = host.InSPyReNet_SwinB(64, False, [384, 384], threshold=None)
        torch.save(network.state_dict(), checkpoint)
        theirs = Remover(mode="fast", ckpt=str(checkpoint), device="cpu")
    return Remover(mode=MODEL_NAME, device="cpu"), theirs


def _in_turn(rounds: int, **calls: Callable[[], object]) -> dict[str, Any]:
    """Median milliseconds of each call, and the median ratio of each to the last."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):  # the first one warms up and does not count
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:
                times[name].append((time.perf_counter() - began) * 1e3)
    last = list(calls)[-1]
    figures: dict[str, Any] = {f"{name}_ms": statistics.median(ms) for name, ms in times.items()}
    for name in list(calls)[:-1]:
        ratios = [a / b for a, b in zip(times[name], times[last], strict=True)]
        figures[f"{name}_to_{last}"] = statistics.median(ratios)
    return figures


def _say(what: str, figures: dict[str, Any], name: str, base: str) -> None:
    print(
        f"{what:<23} {name} {figures[f'{name}_ms']:.0f} ms, {base} {figures[f'{base}_ms']:.0f} ms: "
        f"{figures[f'{name}_to_{base}']:.2f} times as long"
    )


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
