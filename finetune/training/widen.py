"""Widening: a wide U²-Net that computes the same function as a lite one, to fine-tune from.

Net2WiderNet (Chen, Goodfellow and Shlens, "Net2Net: Accelerating learning via knowledge
transfer", ICLR 2016, arXiv:1511.05641), with new channels instead of copied ones: a new channel
computes something random, and old channels read it with weights of zero. So the first answer is the
lite network's, and the first step can already use the new channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from u2net_human_plugin.u2net import STAGES, Decoder, Stage, U2Net, Variant, fold_batch_norm

#: Input channels of a convolution in order of concatenation, as (old, new) counts.
_Groups = list[tuple[int, int]]


@torch.no_grad()
def widened(model: U2Net, variant: Variant = "wide", decoder: Decoder = "half") -> U2Net:
    """A network of ``variant`` with folded batch normalisation and the function of ``model``.

    Args:
        model: no layer of it may be wider than the same one of ``variant``. It is folded, in place.
        variant: the variant of the result.
        decoder: of the result.

    Raises:
        ValueError: ``variant`` is narrower somewhere.
    """
    old, new = STAGES[model.variant], STAGES[variant]
    state = fold_batch_norm(model.eval()).state_dict()
    wide = fold_batch_norm(U2Net(variant, decoder).eval())
    target = wide.state_dict()
    for name in old:
        before, after = old[name], new[name]
        if after.height != before.height or after.dilated != before.dilated:
            raise ValueError(f"{name} of {variant} is built otherwise than that of {model.variant}")
        outputs, middle = (before.outputs, after.outputs), (before.middle, after.middle)
        block = f"{name}.rebnconv"
        _place(state, target, f"{block}in.conv_s1", _inputs(name, old, new), outputs[0])
        for level in range(1, before.height + 1):
            groups = [outputs if level == 1 else middle]
            _place(state, target, f"{block}{level}.conv_s1", groups, middle[0])
        for level in range(before.height - 1, 0, -1):
            out = outputs if level == 1 else middle
            _place(state, target, f"{block}{level}d.conv_s1", [middle, middle], out[0])
    for depth in range(1, 7):
        source = "stage6" if depth == 6 else f"stage{depth}d"
        groups = [(old[source].outputs, new[source].outputs)]
        _place(state, target, f"side{depth}", groups, 1)
    for key in ("outconv.weight", "outconv.bias"):
        target[key].copy_(state[key])
    wide.load_state_dict(target)
    return wide


def _inputs(name: str, old: Mapping[str, Stage], new: Mapping[str, Stage]) -> _Groups:
    """The inputs of a stage: pixels, the stage above, or the stage below and the skip."""

    def outputs(stage: str) -> tuple[int, int]:
        return old[stage].outputs, new[stage].outputs

    depth = int(name[5])
    if name.endswith("d"):
        below = "stage6" if depth == 5 else f"stage{depth + 1}d"
        return [outputs(below), outputs(f"stage{depth}")]
    return [(3, 3)] if depth == 1 else [outputs(f"stage{depth - 1}")]


def _place(
    state: Mapping[str, Tensor], target: dict[str, Tensor], key: str, groups: _Groups, outputs: int
) -> None:
    """Copy a convolution into a larger one's first ``outputs`` channels.

    These read the larger one's additional inputs with weights of zero.
    """
    weight, bias = target[f"{key}.weight"], target[f"{key}.bias"]
    if weight.shape[0] < outputs or any(after < before for before, after in groups):
        raise ValueError(f"{key}: narrower than what it should hold")
    weight[:outputs] = 0
    source = place = 0
    for before, after in groups:
        columns = state[f"{key}.weight"][:, source : source + before]
        weight[:outputs, place : place + before] = columns
        source, place = source + before, place + after
    bias[:outputs] = state[f"{key}.bias"]
    bias[outputs:] = 0
