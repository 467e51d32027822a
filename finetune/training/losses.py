"""The training loss: deeply supervised, on logits; cross-entropy, and by choice terms for alpha."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluation.metrics import EMPTY

#: Levels of the Laplacian pyramid.
LEVELS = 5
#: Where less than this of a blur counts, none of it does.
_LEAST = 1e-8


def deep_supervision(
    outputs: Sequence[Tensor],
    alpha: Tensor,
    weight: Tensor,
    *,
    edge: float = 0.0,
    iou: float = 0.0,
    l1: float = 0.0,
    laplacian: float = 0.0,
) -> Tensor:
    """Sum over all outputs of the mean weighted binary cross-entropy, and of what is chosen beside.

    The sum over side outputs is equation 1 of the U²-Net paper (arXiv:2005.09007), with
    all weights one; the IoU term beside cross-entropy is BASNet's (Qin et al., CVPR 2019), L1 and
    the pyramid are usual for soft mattes. Logits are first resized to the mask, as inference does
    with them. Everything is computed in float32, whatever the network computes in.

    Args:
        outputs: logits, each (N,1,h,w).
        alpha: truth (N,1,H,W) in 0…1; soft values at antialiased edges are right here.
        weight: (N,1,H,W) in 0…1; pixels with 0 do not count.
        edge: how much more a pixel near the contour counts in the cross-entropy: its weight
            is multiplied by ``1 + edge``, falling off over :func:`edge_band`.
        iou: factor of :func:`soft_iou_loss`.
        l1: factor of :func:`l1_loss`.
        laplacian: factor of :func:`laplacian_loss`. With none of the three the loss is
            cross-entropy alone.

    Shape:
        - Output: scalar. Linear in the pictures: the mean of two half batches is the
          value of the whole, so that distributed gradients equal those of one process.
    """
    size = alpha.shape[2:]
    with torch.autocast(alpha.device.type, enabled=False):
        logits = torch.cat([_resized(output.float(), size) for output in outputs], 1)
        truth = alpha.expand_as(logits)
        loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        at_edges = weight * (1 + edge * edge_band(alpha)) if edge else weight
        total = (at_edges * loss).mean()
        if iou or l1 or laplacian:
            predicted = torch.sigmoid(logits)
        if iou:
            total = total + iou * soft_iou_loss(predicted, alpha, weight)
        if l1:
            total = total + l1 * l1_loss(predicted, alpha, weight)
        if laplacian:
            total = total + laplacian * laplacian_loss(predicted, alpha, weight)
        return len(outputs) * total


def _resized(logits: Tensor, size: torch.Size) -> Tensor:
    if logits.shape[2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def soft_iou_loss(predicted: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """One minus the IoU of soft masks, Σ min / Σ max, as the mean over pictures and channels.

    Persons from about two per cent of the picture on count alike, whereas a pixel's cross-entropy
    counts the same wherever it lies. Like :func:`..evaluation.metrics.is_empty` it tolerates
    marks on :data:`..evaluation.metrics.EMPTY` of the picture: both sums are enlarged by as
    much, so that a picture with nobody in it has a gradient, too.

    Args:
        predicted: (N,C,H,W) in 0…1.
        alpha: truth (N,1,H,W), likewise; the loss is 0 where both are equal, at soft edges as well.
        weight: (N,1,H,W) in 0…1.

    Shape:
        - Output: scalar in 0…1.
    """
    tolerated = EMPTY * alpha[0].numel()
    common = (weight * torch.minimum(predicted, alpha)).sum((2, 3)) + tolerated
    either = (weight * torch.maximum(predicted, alpha)).sum((2, 3)) + tolerated
    return (1 - common / either).mean()


def edge_band(alpha: Tensor, radius: int = 3) -> Tensor:
    """How much the mask varies within ``radius`` pixels: (N,1,H,W) in 0…1, 1 at contours."""
    side = 2 * radius + 1
    highest = F.max_pool2d(alpha, side, stride=1, padding=radius)
    lowest = -F.max_pool2d(-alpha, side, stride=1, padding=radius)
    return highest - lowest


def l1_loss(predicted: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error of alpha; pixels of weight 0 add nothing.

    The alpha prediction loss of Deep Image Matting (Xu et al., CVPR 2017, arXiv:1703.03872) and
    MODNet (Ke et al., AAAI 2022, arXiv:2011.11961): soft edges cost as much as they are off,
    whereas cross-entropy has its least value, but not zero, where they are right.

    Args:
        predicted: (N,C,H,W) in 0…1.
        alpha: truth (N,1,H,W), likewise.
        weight: (N,1,H,W) in 0…1.

    Shape:
        - Output: scalar in 0…1.
    """
    return (weight * (predicted - alpha).abs()).mean()


def laplacian_loss(predicted: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """L1 between the Laplacian pyramids of two mattes: Σ 2ⁱ · mean |Lⁱ(predicted) - Lⁱ(alpha)|.

    Five band-pass levels i = 0…4; an error of a constant costs nothing, one of structure as much
    as there is of it at every scale. Hou and Liu, "Context-Aware Image Matting for Simultaneous
    Foreground and Alpha Estimation", ICCV 2019 (arXiv:1909.09725), and FBA matting (Forte and
    Pitié 2020, arXiv:2003.07711); the pyramid is Burt and Adelson's (1983), of binomial 5x5
    kernels.

    A pyramid is linear, so it is that of the difference. What does not count is left out of every
    blur, and a blur's outcome counts as far as what it was made of does (normalised convolution,
    Knutsson and Westin, CVPR 1993); what lies outside the picture does not count either.

    Args:
        predicted: (N,C,H,W) in 0…1.
        alpha: truth (N,1,H,W), likewise.
        weight: (N,1,H,W) in 0…1.

    Shape:
        - Output: scalar, at least 0.
    """
    difference = predicted - alpha
    total = torch.zeros((), device=alpha.device)
    for level in range(LEVELS):
        counted = _reduced(weight)
        coarser = _reduced(weight * difference) / counted.clamp(min=_LEAST)
        known = _enlarged(counted, difference)
        smooth = _enlarged(counted * coarser, difference) / known.clamp(min=_LEAST)
        total = total + 2**level * (weight * (difference - smooth).abs()).mean()
        # As a share of the blur of a picture that counts everywhere: 1 at borders, too.
        weight = counted / _reduced(torch.ones_like(weight[:1]))
        difference = coarser
    return total


def _reduced(planes: Tensor) -> Tensor:
    """Blurred, and every second pixel of every second row: (N,C,H,W) to (N,C,⌈H/2⌉,⌈W/2⌉)."""
    blurred = F.conv2d(planes.flatten(0, 1)[:, None], _kernel(planes), stride=2, padding=2)
    return blurred.view(*planes.shape[:2], *blurred.shape[2:])


def _enlarged(planes: Tensor, like: Tensor) -> Tensor:
    """Spread over twice as many rows and columns and blurred: to the height and width of ``like``.

    Not yet divided by what was spread.
    """
    even = [1 - side % 2 for side in like.shape[2:]]
    flat = planes.flatten(0, 1)[:, None]
    spread = F.conv_transpose2d(flat, _kernel(planes), stride=2, padding=2, output_padding=even)
    return spread.view(*planes.shape[:2], *spread.shape[2:])


def _kernel(like: Tensor) -> Tensor:
    """The binomial approximation of a Gaussian, 5x5, of sum 1."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=like.device) / 16
    return torch.outer(row, row)[None, None]
