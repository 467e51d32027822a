"""The training loss: deeply supervised, binary cross-entropy and soft IoU, on logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluation.metrics import EMPTY


def deep_supervision(
    outputs: Sequence[Tensor],
    alpha: Tensor,
    weight: Tensor,
    *,
    edge: float = 0.0,
    iou: float = 0.0,
) -> Tensor:
    """Sum over all outputs of the mean weighted binary cross-entropy, and of a share of IoU.

    The sum over side outputs is equation 1 of the U²-Net paper (arXiv:2005.09007), with
    all weights one; the IoU term beside cross-entropy is BASNet's (Qin et al., CVPR 2019).
    Logits are first resized to the mask, as inference does with them.

    Args:
        outputs: logits, each (N,1,h,w).
        alpha: truth (N,1,H,W) in 0…1; soft values at antialiased edges are right here.
        weight: (N,1,H,W) in 0…1; pixels with 0 do not count.
        edge: how much more a pixel near the contour counts in the cross-entropy: its weight
            is multiplied by ``1 + edge``, falling off over :func:`edge_band`.
        iou: factor of :func:`soft_iou_loss`; 0 is cross-entropy alone.

    Shape:
        - Output: scalar. Linear in the pictures: the mean of two half batches is the
          value of the whole, so that distributed gradients equal those of one process.
    """
    at_edges = weight * (1 + edge * edge_band(alpha)) if edge else weight
    size = alpha.shape[2:]
    total = torch.zeros((), device=alpha.device)
    for logits in outputs:
        if logits.shape[2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        loss = F.binary_cross_entropy_with_logits(logits, alpha, reduction="none")
        total = total + (at_edges * loss).mean()
        if iou:
            total = total + iou * soft_iou_loss(torch.sigmoid(logits), alpha, weight)
    return total


def soft_iou_loss(predicted: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """One minus the IoU of soft masks, Σ min / Σ max, as the mean over the pictures.

    Persons from about two per cent of the picture on count alike, whereas a pixel's cross-entropy
    counts the same wherever it lies. Like :func:`..evaluation.metrics.is_empty` it tolerates
    marks on :data:`..evaluation.metrics.EMPTY` of the picture: both sums are enlarged by as
    much, so that a picture with nobody in it has a gradient, too.

    Args:
        predicted: (N,1,H,W) in 0…1.
        alpha: truth, likewise; the loss is 0 where both are equal, at soft edges as well.
        weight: (N,1,H,W) in 0…1.

    Shape:
        - Output: scalar in 0…1.
    """
    tolerated = EMPTY * alpha[0].numel()
    common = (weight * torch.minimum(predicted, alpha)).sum((1, 2, 3)) + tolerated
    either = (weight * torch.maximum(predicted, alpha)).sum((1, 2, 3)) + tolerated
    return (1 - common / either).mean()


def edge_band(alpha: Tensor, radius: int = 3) -> Tensor:
    """How much the mask varies within ``radius`` pixels: (N,1,H,W) in 0…1, 1 at contours."""
    side = 2 * radius + 1
    highest = F.max_pool2d(alpha, side, stride=1, padding=radius)
    lowest = -F.max_pool2d(-alpha, side, stride=1, padding=radius)
    return highest - lowest
