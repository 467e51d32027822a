"""A second head that keeps answering as other weights did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from u2net_human_plugin.finetune.training.bank import Bank
from u2net_human_plugin.finetune.training.forgetting import (
    Remembering,
    memory_loss,
    with_answers,
)
from u2net_human_plugin.preprocess import normalize
from u2net_human_plugin.u2net import Decoder, U2Net, fold_batch_norm


def network(decoder: Decoder = "half") -> U2Net:
    torch.manual_seed(5)
    return fold_batch_norm(U2Net("lite", decoder).eval())


@pytest.mark.parametrize("decoder", ["half", "full"])
def test_the_head_begins_as_the_finest_side_output(decoder: Decoder) -> None:
    """And the network's own outputs are as without it."""
    model, picture = network(decoder), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(picture)
        outputs, remembered = Remembering(model)(picture)
    for ours, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(remembered, expected[0 if decoder == "half" else 1])


def test_what_is_to_be_remembered_reaches_the_shared_features() -> None:
    """The head's loss has a gradient in the encoder, and none where it is not known."""
    model = Remembering(network()).train()
    _, logits = model(torch.rand(2, 3, 32, 32))
    before = torch.rand(2, 1, 32, 32)
    known = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    loss = memory_loss(logits, before, known)
    enlarged = F.interpolate(logits, size=(32, 32), mode="bilinear", align_corners=False)
    first = F.binary_cross_entropy_with_logits(enlarged[:1], before[:1])
    torch.testing.assert_close(loss, first / 2)
    loss.backward()
    assert model.network.stage1.rebnconvin.conv_s1.weight.grad.abs().max() > 0
    assert not memory_loss(logits, before, 0 * known).any()


def test_answers_are_those_of_the_network_and_are_kept(tmp_path: Path) -> None:
    """On every picture of the bank; found again for the same weights and size."""
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"one")
    torch.manual_seed(0)
    rgb = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    ones = torch.ones(2)
    planes = {"rgb": rgb, "alpha": rgb[:, :1], "weight": rgb[:, :1]}
    kinds = ["photo", "scene"]
    nothing = torch.zeros(0, dtype=torch.long)
    bank = Bank(tmp_path, planes, ones, torch.zeros(2, 4), ones, kinds, nothing)  # type: ignore[arg-type]
    model, cpu = network(), torch.device("cpu")
    before = with_answers(bank, model, weights, 32, cpu).planes["before"]
    picture = torch.from_numpy(normalize(rgb[1].permute(1, 2, 0).numpy()))[None]
    with torch.no_grad():
        logits = F.interpolate(model(picture)[0], (32, 32), mode="bilinear", align_corners=False)
    expected = torch.sigmoid(logits)[0] * 255
    assert (before[1].float() - expected).abs().max() <= 1

    def forbidden(_picture: torch.Tensor) -> None:
        raise AssertionError("asked again")

    again = with_answers(bank, _Asked(forbidden), weights, 32, cpu)  # type: ignore[arg-type]
    assert torch.equal(again.planes["before"], before)
    weights.write_bytes(b"another")
    with pytest.raises(AssertionError, match="asked again"):
        with_answers(bank, _Asked(forbidden), weights, 32, cpu)  # type: ignore[arg-type]


class _Asked(torch.nn.Module):
    def __init__(self, forward: object) -> None:
        super().__init__()
        self.forward = forward  # type: ignore[assignment,method-assign]
