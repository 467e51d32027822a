"""Reading U²-Net checkpoints of every kind into a :class:`~u2net_human_plugin.u2net.U2Net`.

Accepted are official ``.pth`` state dicts (full and lite), state dicts of any variant saved
by ``python -m finetune train``, and the official ``.onnx`` files that rembg downloads.
A ``.pth`` is opened with ``weights_only=True``: a pickle with code in it is refused,
never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from .errors import MissingExtraError, WeightsError
from .u2net import FULL_RESOLUTION_PARTS, Decoder, U2Net, Variant, fold_batch_norm

_EXPECTED = (
    "a U²-Net state dict (.pth; full, wide or lite, official or from "
    "`python -m u2net_human_plugin.finetune train`) or an official U²-Net .onnx file"
)


#: What a file from ``python -m finetune export`` lacks: the half decoder's first output is
#: all it computes.
_NOT_EXPORTED = (*FULL_RESOLUTION_PARTS, "side3", "side4", "side5", "side6")


def load_checkpoint(
    path: Path | str, decoder: Decoder = "full", *, inference: bool = False
) -> U2Net:
    """Read a checkpoint and return the network in ``eval`` mode, on the CPU, float32.

    The variant is recognised from the file. Networks read from
    ``.onnx`` come back with folded batch normalisation, as the file holds them.

    With ``inference``, our own ``.onnx`` files are accepted, too. They hold no more than
    the half decoder's first output needs: only that output of the network means anything.

    Raises:
        WeightsError: the file is missing, unreadable, holds pickled code, or is not a
            U²-Net; the message names the file, what it holds and what was expected.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected {_EXPECTED}.")
    if path.suffix.lower() == ".onnx":
        model = _load_onnx(path, decoder, inference)
    else:
        model = load_state_dict(_read_pth(path), decoder, origin=str(path))
    return model.eval()


def load_state_dict(state: Mapping[str, Any], decoder: Decoder, origin: str) -> U2Net:
    """Build the network that ``state`` belongs to and load it strictly.

    ``origin`` names the source in errors. A ``module.`` prefix, as written by
    DataParallel, is removed, and a folded state dict (no batch-norm keys) is accepted.
    """
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    first = state.get("stage1.rebnconv1.conv_s1.weight")
    if not isinstance(first, Tensor) or first.ndim != 4:
        keys = ", ".join(sorted(state)[:3]) or "nothing"
        raise WeightsError(f"{origin}: not a U²-Net (it holds {keys} …); expected {_EXPECTED}.")
    variant = _variant(state)
    model = U2Net(variant, decoder)
    if not any(".bn_s1." in key for key in state):
        fold_batch_norm(model)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{origin}: looks like a {variant} U²-Net but does not fit: {reason}; "
            f"expected {_EXPECTED}."
        ) from None
    return model


def _variant(state: Mapping[str, Any]) -> Variant:
    """Which U²-Net a state dict is of: its widths at a shallow and at a deep stage say so."""
    if state["stage1.rebnconv1.conv_s1.weight"].shape[0] == 32:
        return "full"
    deep = state.get("stage5.rebnconv1.conv_s1.weight")
    return "wide" if isinstance(deep, Tensor) and deep.shape[0] == 96 else "lite"


def _read_pth(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many unrelated types
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path}: cannot be read as a plain tensor file ({type(error).__name__}: {reason}); "
            f"expected {_EXPECTED}."
        ) from None
    # Training checkpoints of this project keep the network under "model".
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(content).__name__}, not a state dict; expected {_EXPECTED}."
        )
    return content


def _load_onnx(path: Path, decoder: Decoder, inference: bool) -> U2Net:
    """Walk the file's convolutions in order beside the network's own.

    Official ONNX files carry no parameter names, but they list the convolutions in
    the order in which the network runs them, batch normalisation already folded in.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise MissingExtraError(
            f"{path}: torch cannot read it without the package onnx: pip install onnx. "
            "A .pth file needs none, and on the CPU onnxruntime reads it as it is."
        ) from None

    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # noqa: BLE001 - protobuf's DecodeError is no public, stable type
        raise WeightsError(
            f"{path}: not an ONNX file ({type(error).__name__}); expected {_EXPECTED}."
        ) from None
    constants = {item.name: item for item in graph.initializer}
    # Our own files store weights in half precision and cast them.
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    parameters = [
        [numpy_helper.to_array(constants[name]) for name in node.input[1:3] if name in constants]
        for node in graph.node
        if node.op_type == "Conv"
    ]
    layouts: list[tuple[Variant, tuple[str, ...]]]
    layouts = [(variant, ()) for variant in get_args(Variant)]
    if inference:
        layouts += [(variant, _NOT_EXPORTED) for variant in get_args(Variant)]
    for variant, absent in layouts:
        model = fold_batch_norm(U2Net(variant, "half" if absent else decoder))
        convolutions = [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and name.partition(".")[0] not in absent
        ]
        shapes = [(tuple(conv.weight.shape), (conv.out_channels,)) for conv in convolutions]
        if shapes == [tuple(array.shape for array in pair) for pair in parameters]:
            with torch.no_grad():
                for conv, (weight, bias) in zip(convolutions, parameters, strict=True):
                    assert conv.bias is not None
                    conv.weight.copy_(torch.from_numpy(weight.copy()))
                    conv.bias.copy_(torch.from_numpy(bias.copy()))
            side = graph.input[0].type.tensor_type.shape.dim[2].dim_value
            model.size = side or None
            return model
    raise WeightsError(
        f"{path}: an ONNX file with {len(parameters)} convolutions that are not those of U²-Net "
        f"(119, in the official order); expected {_EXPECTED}."
    )
