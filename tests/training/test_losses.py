"""The training loss: known answers and invariants."""

from __future__ import annotations

import math

import pytest
import torch

from u2net_human_plugin.finetune.evaluation.metrics import EMPTY
from u2net_human_plugin.finetune.training.losses import deep_supervision, soft_iou_loss


def half(pictures: int = 1, side: int = 20) -> torch.Tensor:
    """A mask whose left half is a person."""
    alpha = torch.zeros(pictures, 1, side, side)
    alpha[..., : side // 2] = 1
    return alpha


def test_bce_of_undecided_outputs_is_log_2_each() -> None:
    """Logits of zero cost log 2 a pixel, whatever the truth, and outputs add up."""
    alpha = half()
    outputs = [torch.zeros_like(alpha), torch.zeros(1, 1, 5, 5)]
    loss = deep_supervision(outputs, alpha, torch.ones_like(alpha))
    assert float(loss) == pytest.approx(2 * math.log(2), rel=1e-6)


def test_pixels_at_the_contour_count_more() -> None:
    """With edge = 2 they count three times: here six of twenty columns, 3 on either side."""
    alpha = half()
    zeros, ones = torch.zeros_like(alpha), torch.ones_like(alpha)
    loss = deep_supervision([zeros], alpha, ones, edge=2)
    assert float(loss) == pytest.approx(math.log(2) * (14 + 3 * 6) / 20, rel=1e-6)


def test_soft_iou_of_known_masks() -> None:
    """Half right is one half; what is right at soft edges, too, costs nothing."""
    alpha = half()
    ones = torch.ones_like(alpha)
    tolerated = EMPTY * alpha.numel()
    everywhere = float(soft_iou_loss(ones, alpha, ones))
    assert everywhere == pytest.approx(1 - (200 + tolerated) / (400 + tolerated))
    soft = alpha * 0.5
    assert float(soft_iou_loss(soft, soft, ones)) == 0
    # An ignored pixel is neither common nor either's.
    assert float(soft_iou_loss(ones, alpha, alpha)) == 0


def test_soft_iou_counts_people_and_not_pixels() -> None:
    """A missed person costs nearly one, whether they fill a half or a twentieth of the picture."""
    large, small = half(), torch.zeros(1, 1, 20, 20)
    small[..., :1] = 1
    nothing, ones = torch.zeros_like(large), torch.ones_like(large)
    assert float(soft_iou_loss(nothing, large, ones)) == pytest.approx(1 - 2 / 202)
    assert float(soft_iou_loss(nothing, small, ones)) == pytest.approx(1 - 2 / 22)


def test_marks_on_nobody_are_pushed_down() -> None:
    """In a picture without people the IoU term has a gradient, against every mark."""
    logits = torch.zeros(1, 1, 20, 20, requires_grad=True)
    empty = torch.zeros(1, 1, 20, 20)
    loss = soft_iou_loss(torch.sigmoid(logits), empty, torch.ones_like(empty))
    loss.backward()
    assert logits.grad is not None
    assert bool((logits.grad > 0).all())


@pytest.mark.parametrize("iou", [0.0, 1.0])
def test_the_mean_of_two_halves_is_the_loss_of_the_whole(iou: float) -> None:
    """What distributed training relies on: gradients of shares of a batch average to its own."""
    generator = torch.Generator().manual_seed(1)
    alpha = torch.rand(4, 1, 16, 16, generator=generator).round()
    weight = torch.rand(4, 1, 16, 16, generator=generator)
    outputs = [torch.randn(4, 1, side, side, generator=generator) for side in (16, 8, 4)]

    def loss(part: slice) -> float:
        given = [logits[part] for logits in outputs]
        return float(deep_supervision(given, alpha[part], weight[part], edge=2, iou=iou))

    halves = (loss(slice(0, 2)) + loss(slice(2, 4))) / 2
    assert halves == pytest.approx(loss(slice(0, 4)), rel=1e-6)


def test_iou_adds_its_share_for_every_output() -> None:
    """The factor multiplies a term of each output."""
    alpha = half()
    ones, outputs = torch.ones_like(alpha), [torch.zeros_like(alpha)] * 2
    plain = deep_supervision(outputs, alpha, ones)
    term = soft_iou_loss(torch.full_like(alpha, 0.5), alpha, ones)
    assert float(deep_supervision(outputs, alpha, ones, iou=3)) == pytest.approx(
        float(plain + 2 * 3 * term), rel=1e-6
    )
