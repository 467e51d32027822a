"""The measurements of :mod:`.plugin` that load networks, each run in its own process.

    python -m finetune.benchmarks.plugin_measurements MEASUREMENT RESULT.json ARGUMENT…

:mod:`.plugin` sets the environment variables that say which weights are used. All arguments are
text, because they come from this command line.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from u2net_human_plugin.hosts import register
from u2net_human_plugin.network import Array, Network, load_onnx
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.weights import MODEL_NAME, bundled, find_weights

from ..data.manifest import read_manifest
from ..data.pictures import load_image, load_mask
from ..evaluation.measure import evenly
from ..evaluation.metrics import iou
from .plugin import SIZES

#: How many pictures of different sizes :func:`endurance` takes in turn.
_PICTURES = 50


class _Timed:
    """A network that adds up the time it takes."""

    def __init__(self, network: Network) -> None:
        self.network, self.settings, self.seconds = network, network.settings, 0.0

    def __call__(self, batch: Array) -> Array:
        began = time.perf_counter()
        alphas = self.network(batch)
        self.seconds += time.perf_counter() - began
        return alphas


def predict(rounds: str, macs: str) -> dict[str, Any]:
    """Time a prediction of both sessions, and of the bundled weights, which a user runs.

    Args:
        rounds: how many times each is timed, after one time that does not count.
        macs: multiply-accumulates of the network for one picture; 0 if they are not known.

    Returns:
        For each of :data:`~.plugin.SIZES`: ``u2netp_ms`` and ``ours_ms``, median milliseconds of
        rembg's session and of the plugin's with the same weights; ``times_faster`` with its
        range; ``bundled_s``, median seconds with the bundled weights; the share of the time
        outside the network, 0…1; and 10⁹ multiply-accumulates a second, of the network and of a
        plain matrix product.
    """
    ours, theirs = _session(MODEL_NAME), _session("u2netp")
    networks = {"whole": _Timed(load_onnx(find_weights())), "bundled": _Timed(load_onnx(bundled()))}
    segmenters = {name: HumanSegmenter(network=network) for name, network in networks.items()}
    predictions: dict[str, Callable[[Image.Image], object]] = {
        "u2netp": theirs.predict,
        MODEL_NAME: ours.predict,
        **{name: segmenter.mask for name, segmenter in segmenters.items()},
    }
    figures: dict[str, Any] = {}
    for label, size in SIZES.items():
        picture = _portrait().resize(size)
        times: dict[str, list[float]] = {name: [] for name in predictions}
        inside: dict[str, list[float]] = {name: [] for name in networks}
        rates: list[float] = []
        for turn in range(int(rounds) + 1):  # the first one warms up and does not count
            for network in networks.values():
                network.seconds = 0.0
            found = {name: _seconds(call, picture) for name, call in predictions.items()}
            rate = _matrix_product_rate()
            if turn:
                rates.append(rate)
                for name, seconds in found.items():
                    times[name].append(seconds)
                for name, network in networks.items():
                    inside[name].append(network.seconds)
        figures[label] = _summary(label, times, inside, rates, int(macs))
    return figures


def _summary(
    label: str,
    times: dict[str, list[float]],
    inside: dict[str, list[float]],
    rates: list[float],
    macs: int,
) -> dict[str, Any]:
    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = [a / b for a, b in zip(times["u2netp"], times[MODEL_NAME], strict=True)]
    outside = {
        name: statistics.median(1 - n / w for n, w in zip(seconds, times[name], strict=True))
        for name, seconds in inside.items()
    }
    figures = {
        "u2netp_ms": median["u2netp"] * 1e3,
        "ours_ms": median[MODEL_NAME] * 1e3,
        "times_faster": statistics.median(ratios),
        "times_faster_range": [min(ratios), max(ratios)],
        "outside_network": outside["whole"],
        "bundled_s": median["bundled"],
        "bundled_outside_network": outside["bundled"],
        "network_gmac_per_s": macs / statistics.median(inside["whole"]) / 1e9 if macs else None,
        "matrix_product_gmac_per_s": statistics.median(rates),
    }
    print(
        f"predict         {label}: {figures['ours_ms']:.0f} ms, rembg's u2netp "
        f"{figures['u2netp_ms']:.0f} ms: {figures['times_faster']:.2f} times faster "
        f"({min(ratios):.2f} to {max(ratios):.2f})\n"
        f"                outside the network: {figures['outside_network']:.1%}\n"
        f"                the bundled weights: {figures['bundled_s']:.2f} s, outside the network "
        f"{figures['bundled_outside_network']:.1%}"
    )
    if macs:
        print(
            f"                the network: {macs / 1e9:.1f} GMAC at "
            f"{figures['network_gmac_per_s']:.0f} GMAC/s; a plain matrix product: "
            f"{figures['matrix_product_gmac_per_s']:.0f} GMAC/s"
        )
    return figures


def peak(model: str, label: str) -> float:
    """Peak resident memory of this process after one prediction, in MB.

    Args:
        model: the name of a rembg session.
        label: the picture's size, a key of :data:`~.plugin.SIZES`.
    """
    _session(model).predict(_portrait().resize(SIZES[label]))
    return _memory("VmHWM") / 1e6


def masks(weights: str, manifest: str, split: str, limit: str) -> dict[str, Any]:
    """Mean IoU of both sessions' masks with the true ones, 0…1, for each source.

    Args:
        weights: what the printed line calls the weights.
        manifest: a manifest, or the folder that holds it.
        split: the rows of this split are taken, if they have a mask file.
        limit: at most so many of them, evenly drawn; 0 for all.

    Returns:
        For each source the number of ``pictures``, and the mean IoU, ``ours`` and ``u2netp``.
    """
    ours, theirs = _session(MODEL_NAME), _session("u2netp")
    rows = [row for row in read_manifest(manifest) if row.split == split]
    rows = [row for row in rows if row.mask not in (None, "alpha")]
    scores: dict[str, list[tuple[float, float]]] = {}
    for row in evenly(rows, int(limit) or None):
        picture, truth = load_image(row), np.asarray(load_mask(row))
        found = [iou(np.asarray(session.predict(picture)[0]), truth) for session in (ours, theirs)]
        scores.setdefault(row.source, []).append((found[0], found[1]))
    figures = {}
    for source, pairs in scores.items():
        own, other = np.mean(pairs, axis=0)
        print(
            f"masks           {weights} weights, {source} ({len(pairs)}): IoU {own:.4f}, rembg's "
            f"u2netp session {other:.4f}, difference {own - other:+.4f}"
        )
        figures[source] = {"pictures": len(pairs), "ours": own, "u2netp": other}
    return figures


def endurance(calls: str) -> dict[str, float]:
    """Masks a second, and how resident memory grows over ``calls`` calls.

    Returns:
        ``masks_per_s``, over the first 50 pictures; ``early_mb``, the memory after these, in MB;
        ``late_mb``, after all calls; ``growth``, the difference as a share of ``early_mb``.
    """
    session = _session(MODEL_NAME)
    portrait = _portrait()
    pictures = [portrait.resize((400 + 9 * n, 900 - 7 * n)) for n in range(_PICTURES)]
    session.predict(pictures[0])
    began = time.perf_counter()
    for picture in pictures:
        session.predict(picture)
    rate = _PICTURES / (time.perf_counter() - began)
    early = _memory("VmRSS")
    for call in range(_PICTURES, int(calls)):
        session.predict(pictures[call % _PICTURES])
    late = _memory("VmRSS")
    growth = late / early - 1
    print(
        f"endurance       {rate:.1f} masks per second over {_PICTURES} pictures; resident memory "
        f"{early / 1e6:.0f} MB after {_PICTURES} calls, {late / 1e6:.0f} MB after {calls}: "
        f"{growth:+.1%}"
    )
    return {"masks_per_s": rate, "early_mb": early / 1e6, "late_mb": late / 1e6, "growth": growth}


def transparent_background(rounds: str) -> dict[str, Any]:
    """Compare our mode with the host's mode "fast", and torch with onnxruntime."""
    from .transparent_background import measure

    return measure(int(rounds))


def _session(model: str) -> Any:
    from rembg import new_session

    register()
    return new_session(model)


def _portrait() -> Image.Image:
    from skimage import data

    astronaut: Any = data.astronaut
    return Image.fromarray(astronaut())


def _seconds(call: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def _matrix_product_rate(side: int = 1536) -> float:
    """10⁹ multiply-accumulates a second of numpy's product of two float32 matrices."""
    matrix = np.ones((side, side), np.float32)
    return side**3 / _seconds(np.matmul, matrix, matrix) / 1e9


def _memory(field: str) -> int:
    """Resident memory of this process in bytes: now (VmRSS), or its peak (VmHWM).

    Raises:
        SystemExit: there is no /proc.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        raise SystemExit("Memory is measured on Linux only: there is no /proc here.") from None
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    measurements = (predict, peak, masks, endurance, transparent_background)
    measurement = next(item for item in measurements if item.__name__ == sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps(measurement(*sys.argv[3:])), "utf-8")
