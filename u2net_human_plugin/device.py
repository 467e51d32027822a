"""Where a network runs: the device, and the runtime that is the faster one there."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .errors import OptionError, WeightsError
from .network import Network, load_onnx, load_torch
from .weights import find_weights

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def available_device(asked: str | int | torch.device | None = None) -> str:
    """The torch device to run on, as a string that ``tensor.to`` takes.

    Args:
        asked: "cpu", "cuda", "cuda:0", "mps:0" …; None takes a GPU if there is one. A
            device that torch knows but this machine lacks is logged, and the CPU taken.

    Raises:
        OptionError: torch knows no such device.
    """
    import torch

    if asked is None:
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps:0" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError):
        raise OptionError(f"device={asked!r}: expected cpu, cuda, cuda:0, mps:0 …") from None
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # Which of them depends on the device and on how torch was built.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("%s is not available here (%s); running on the CPU.", device, reason)
        return "cpu"
    return "cpu" if device.type == "cpu" else str(device)  # there is but one: cpu:0, too


def network_for(path: str | os.PathLike[str] | None, device: str, jit: bool) -> Network:
    """The network for a device: onnxruntime's on the CPU where it can be used, else torch's.

    Args:
        path: a weights file of the user's; None takes the one that
            :mod:`u2net_human_plugin.weights` finds.
        device: "cpu", "cuda:0", "mps:0" …, from :func:`available_device`.
        jit: run it as TorchScript, hence in torch.

    onnxruntime needs an ONNX file. It is faster than torch on the CPU (``python -m
    finetune benchmark plugin`` shows by how much). It also runs, and the log says so, what
    torch cannot of the weights that the user has chosen for both hosts: ONNX files that are no
    U²-Net.

    Raises:
        WeightsError: the file is no network that can be run so; the message says what it is.
    """
    weights = find_weights(path)
    onnx = weights.path.suffix.lower() == ".onnx" and find_spec("onnxruntime") is not None
    providers = ["CPUExecutionProvider"] if device == "cpu" else None
    if onnx and device == "cpu" and not jit:
        return load_onnx(weights, providers)
    try:
        return load_torch(weights, device, traced=jit)
    except WeightsError as error:
        if weights.origin in ("given", "bundled") or not onnx:
            raise
        network = load_onnx(weights, providers)  # a missing or damaged file is an error here, too
        log.warning("torch cannot run these weights, so onnxruntime does (%s)", error)
        return network
