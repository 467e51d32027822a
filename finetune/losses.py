"""The training loss: deeply supervised binary cross-entropy on logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def deep_supervision_bce(
    outputs: Sequence[Tensor], alpha: Tensor, weight: Tensor, edge: float = 0.0
) -> Tensor:
    """Sum over all outputs of the mean weighted binary cross-entropy.

    The sum over side outputs is equation 1 of the U²-Net paper (arXiv:2005.09007), with
    all weights one. Logits are first resized to the mask, as inference does with them.

    Args:
        outputs: logits, each (N,1,h,w).
        alpha: truth (N,1,H,W) in 0…1; soft values at antialiased edges are right here.
        weight: (N,1,H,W) in 0…1; pixels with 0 do not count.
        edge: how much more a pixel near the contour counts: its weight is multiplied by
            ``1 + edge``, falling off over :func:`edge_band`.

    Shape:
        - Output: scalar. Linear in the pictures: the mean of two half batches is the
          value of the whole, so that distributed gradients equal those of one process.
    """
    if edge:
        weight = weight * (1 + edge * edge_band(alpha))
    size = alpha.shape[2:]
    total = torch.zeros((), device=alpha.device)
    for logits in outputs:
        if logits.shape[2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        loss = F.binary_cross_entropy_with_logits(logits, alpha, reduction="none")
        total = total + (weight * loss).mean()
    return total


def edge_band(alpha: Tensor, radius: int = 3) -> Tensor:
    """How much the mask varies within ``radius`` pixels: (N,1,H,W) in 0…1, 1 at contours."""
    side = 2 * radius + 1
    highest = F.max_pool2d(alpha, side, stride=1, padding=radius)
    lowest = -F.max_pool2d(-alpha, side, stride=1, padding=radius)
    return highest - lowest
