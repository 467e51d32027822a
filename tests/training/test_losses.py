"""The training loss: known answers and invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from u2net_human_plugin.finetune.evaluation.metrics import EMPTY
from u2net_human_plugin.finetune.training.losses import (
    LEVELS,
    deep_supervision,
    l1_loss,
    laplacian_loss,
    soft_iou_loss,
)

cv2 = pytest.importorskip("cv2", reason="needs OpenCV, which the extra dev installs")


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


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


TERMS = ({}, {"iou": 1.0}, {"l1": 1.0}, {"laplacian": 1.0}, {"iou": 1, "l1": 2, "laplacian": 3})


@pytest.mark.parametrize("terms", TERMS)
def test_the_mean_of_two_halves_is_the_loss_of_the_whole(terms: dict[str, float]) -> None:
    """What distributed training relies on: gradients of shares of a batch average to its own."""
    alpha, weight = noise(4, 1, 16, 16).round(), noise(4, 1, 16, 16, seed=2)
    outputs = [noise(4, 1, side, side, seed=side) * 6 - 3 for side in (16, 8, 4)]

    def loss(part: slice) -> float:
        given = [logits[part] for logits in outputs]
        return float(deep_supervision(given, alpha[part], weight[part], edge=2, **terms))

    halves = (loss(slice(0, 2)) + loss(slice(2, 4))) / 2
    assert halves == pytest.approx(loss(slice(0, 4)), rel=1e-6)


@pytest.mark.parametrize("terms", TERMS)
def test_bfloat16_of_the_network_is_not_the_losses(terms: dict[str, float]) -> None:
    """Within autocast, of logits that are exact in bfloat16, it is the same number."""
    alpha, weight = noise(2, 1, 32, 32), noise(2, 1, 32, 32, seed=2)
    outputs = [noise(2, 1, side, side, seed=side).bfloat16() * 4 for side in (32, 8)]
    expected = deep_supervision([o.float() for o in outputs], alpha, weight, edge=2, **terms)
    with torch.autocast("cpu", torch.bfloat16):
        loss = deep_supervision(outputs, alpha, weight, edge=2, **terms)
    assert loss.dtype == torch.float32
    assert float(loss) == float(expected)


@pytest.mark.parametrize("name", ["iou", "l1", "laplacian"])
def test_each_term_adds_its_share_for_every_output(name: str) -> None:
    """The factor multiplies a term of each output, on what its sigmoid says."""
    alpha, weight = noise(2, 1, 32, 32), noise(2, 1, 32, 32, seed=2)
    outputs = [noise(2, 1, 32, 32, seed=seed) * 6 - 3 for seed in (3, 4)]
    term = {"iou": soft_iou_loss, "l1": l1_loss, "laplacian": laplacian_loss}[name]
    plain = deep_supervision(outputs, alpha, weight)
    expected = plain + 3 * sum(term(torch.sigmoid(logits), alpha, weight) for logits in outputs)
    loss = deep_supervision(outputs, alpha, weight, **{name: 3})
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_l1_of_known_mattes() -> None:
    """The mean of what counts; a right soft edge costs nothing."""
    alpha = half() * 0.5
    ones = torch.ones_like(alpha)
    assert float(l1_loss(alpha, alpha, ones)) == 0
    assert float(l1_loss(ones, alpha, ones)) == pytest.approx(0.75)
    assert float(l1_loss(ones, alpha, half())) == pytest.approx(0.25)


def test_the_pyramid_is_opencvs() -> None:
    """Away from borders: five levels of pyrDown and pyrUp, level i counted 2^i times."""
    difference = np.zeros((512, 512), np.float32)
    difference[240:261, 250:275] = np.random.default_rng(0).uniform(-1, 1, (21, 25))
    expected, rest = 0.0, difference
    for level in range(LEVELS):
        coarser = cv2.pyrDown(rest)
        expected += 2**level * float(np.abs(rest - cv2.pyrUp(coarser)).mean())
        rest = coarser
    alpha = torch.full((1, 1, 512, 512), 0.5)
    loss = laplacian_loss(alpha + torch.from_numpy(difference), alpha, torch.ones_like(alpha))
    assert expected > 1e-3
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (57, 90), (1, 3)])
def test_the_pyramid_knows_no_constants(size: tuple[int, int]) -> None:
    """Neither borders nor what does not count make an edge where the error is the same all over."""
    alpha, weight = noise(2, 1, *size) * 0.5, noise(2, 1, *size, seed=2).round()
    for counted in (torch.ones_like(alpha), weight):
        assert float(laplacian_loss(alpha + 0.25, alpha, counted)) == pytest.approx(0, abs=1e-5)


def test_what_does_not_count_is_in_no_level() -> None:
    """Whatever stands there, the loss is the same and has no gradient there; nothing counts: 0."""
    alpha, weight = noise(2, 1, 64, 64), torch.ones(2, 1, 64, 64)
    weight[:, :, 20:50, 10:40] = 0
    predicted = noise(2, 1, 64, 64, seed=2).requires_grad_()
    other = torch.where(weight > 0, predicted.detach(), 1 - predicted.detach())
    loss = laplacian_loss(predicted, alpha, weight)
    same = float(laplacian_loss(other, alpha, weight))
    assert loss.item() == pytest.approx(same, rel=1e-5)
    loss.backward()
    assert predicted.grad is not None
    assert float(predicted.grad[weight == 0].abs().max()) == 0
    assert float(predicted.grad[weight > 0].abs().min()) > 0
    nothing = laplacian_loss(predicted, alpha, torch.zeros_like(weight))
    nothing.backward()
    assert nothing.item() == 0
    assert bool(predicted.grad.isfinite().all())


def test_structure_costs_more_the_larger_it_is() -> None:
    """A lost strand, a lost hand and a lost person have an error at every scale up to theirs."""
    ones = torch.ones(1, 1, 128, 128)
    lost = []
    for width in (2, 8, 32):
        alpha = torch.zeros_like(ones)
        alpha[..., 48 : 48 + width] = 1
        lost.append(float(laplacian_loss(torch.zeros_like(ones), alpha, ones)))
    assert lost[0] < lost[1] < lost[2]
    # A soft edge that was made hard is an error, a right one is none.
    soft = torch.sigmoid(torch.linspace(-6, 6, 128)).expand_as(ones)
    assert float(laplacian_loss(soft, soft, ones)) == 0
    assert float(laplacian_loss(soft.round(), soft, ones)) > 0
