"""Batch normalisation in fine-tuning.

Frozen (the default): the statistics are folded into the convolutions, and the network trains
without normalisation. That is right for small batches, whose statistics are noise, makes several
processes compute exactly what one would, and is faster. Live: for large batches. Starting weights
from ONNX have lost their statistics, which are measured first.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from u2net_human_plugin.u2net import ConvBlock, Net, unfold_batch_norm


@torch.no_grad()
def calibrate(model: Net, images: Iterable[Tensor]) -> Net:
    """Set every layer's running statistics to those of ``images``, in place.

    Scale and shift change accordingly, so that the network computes the same function in ``eval``
    mode as before and starts from it in ``train`` mode.

    Args:
        model: with or without folded batch normalisation.
        images: batches (N,3,H,W) as the network takes them.
    """
    unfold_batch_norm(model).eval()
    sums: dict[ConvBlock, list[Tensor]] = {}

    def measure(block: ConvBlock) -> None:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            values = output.double()
            found = [
                torch.tensor(values.numel() / values.shape[1], dtype=torch.float64),
                values.sum((0, 2, 3)),
                values.square().sum((0, 2, 3)),
            ]
            before = sums.get(block)
            sums[block] = [a + b for a, b in zip(before, found, strict=True)] if before else found

        handles.append(block.conv_s1.register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    blocks = [module for module in model.modules() if isinstance(module, ConvBlock)]
    for block in blocks:
        measure(block)
    try:
        for batch in images:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    for block, (count, total, squares) in sums.items():
        norm = block.bn_s1
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        # y = (x - m) / s * g + b must hold for the old and for the new m and s.
        old_scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_((mean - norm.running_mean) * old_scale)
        norm.weight.copy_(old_scale * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return model
