"""The U²-Net architecture: its size, its names, its outputs."""

from __future__ import annotations

import pytest
import torch

from u2net_human_plugin.u2net import (
    FULL_RESOLUTION_PARTS,
    ConvBlock,
    ResidualUBlock,
    U2Net,
    fold_batch_norm,
    unfold_batch_norm,
)

#: Levels of each stage's residual U-block, from figure 5 of the paper.
LEVELS = {
    "stage1": 7, "stage2": 6, "stage3": 5, "stage4": 4, "stage5": 4, "stage6": 4,
    "stage5d": 4, "stage4d": 4, "stage3d": 5, "stage2d": 6, "stage1d": 7,
}  # fmt: skip


def official_keys() -> set[str]:
    """The keys of the published state dicts, spelt out from the paper's structure."""
    keys = {f"{layer}.{kind}" for layer in (*(f"side{n}" for n in range(1, 7)), "outconv")
            for kind in ("weight", "bias")}  # fmt: skip
    for stage, levels in LEVELS.items():
        down = [f"rebnconv{level}" for level in range(1, levels + 1)]
        up = [f"rebnconv{level}d" for level in range(1, levels)]
        for block in ("rebnconvin", *down, *up):
            keys |= {f"{stage}.{block}.conv_s1.{kind}" for kind in ("weight", "bias")}
            keys |= {
                f"{stage}.{block}.bn_s1.{kind}"
                for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            }
    return keys


def randomised(model: U2Net) -> U2Net:
    """Batch normalisation that does something, so that folding it can go wrong."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


def picture(height: int = 64, width: int = 64, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("variant", "parameters"), [("full", 44_009_869), ("lite", 1_131_181)])
def test_parameter_count(variant, parameters):
    """Both variants have exactly the published number of parameters."""
    assert sum(p.numel() for p in U2Net(variant).parameters()) == parameters


@pytest.mark.parametrize("variant", ["full", "lite"])
@pytest.mark.parametrize("decoder", ["full", "half"])
def test_state_dict_keys(variant, decoder):
    """The state dict has the official keys, all of them, whichever decoder runs."""
    assert set(U2Net(variant, decoder).state_dict()) == official_keys()


@pytest.mark.parametrize("variant", ["full", "lite"])
def test_output_shapes(variant):
    """The full decoder gives d0…d6 at the input's size, the half one d2…d6 at half of it."""
    model = U2Net(variant).eval()
    with torch.inference_mode():
        assert [tuple(d.shape) for d in model(picture(64, 96, 2))] == [(2, 1, 64, 96)] * 7
        model.decoder = "half"
        assert [tuple(d.shape) for d in model(picture(64, 96, 2))] == [(2, 1, 32, 48)] * 5


@pytest.mark.parametrize("size", [(33, 47), (65, 64), (100, 31), (320, 213)])
def test_odd_sizes(size):
    """Any input size works, not only multiples of 32; halves are rounded up."""
    height, width = size
    model = randomised(U2Net("lite"))
    with torch.inference_mode():
        assert [tuple(d.shape[2:]) for d in model(picture(*size))] == [size] * 7
        model.decoder = "half"
        half = ((height + 1) // 2, (width + 1) // 2)
        assert [tuple(d.shape[2:]) for d in model(picture(*size))] == [half] * 5


def test_half_decoder_is_the_full_one_without_its_last_stage():
    """d2 of the half decoder, enlarged, is d2 of the full decoder."""
    model = randomised(U2Net("lite"))
    with torch.inference_mode():
        full = model(picture())
        model.decoder = "half"
        half = model(picture())
    enlarged = torch.nn.functional.interpolate(half[0], scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(enlarged, full[2])


def test_half_decoder_leaves_out_what_it_says():
    """A backward pass through the half decoder reaches every part but the named ones."""
    model = U2Net("lite", "half")
    sum(d.mean() for d in model(picture(batch=2))).backward()
    unused = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
    assert unused == set(FULL_RESOLUTION_PARTS)


@pytest.mark.parametrize("variant", ["full", "lite"])
def test_fold_keeps_the_function(variant):
    """Folded, the network computes the same without a single normalisation layer."""
    model = randomised(U2Net(variant))
    with torch.inference_mode():
        before = model(picture())
        after = fold_batch_norm(model)(picture())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-4)


def test_unfold_restores_the_official_keys_and_keeps_the_function():
    """Unfolded, the state dict is complete again and the answers are the same."""
    model = fold_batch_norm(randomised(U2Net("lite")))
    with torch.inference_mode():
        before = model(picture())
        after = unfold_batch_norm(model).eval()(picture())
    assert set(model.state_dict()) == official_keys()
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)


def test_folding_keeps_the_mode_and_the_gradients():
    """A model in training stays in training, and its folded convolutions still learn."""
    model = fold_batch_norm(U2Net("lite").train())
    block = next(m for m in model.modules() if isinstance(m, ConvBlock))
    assert block.training
    assert all(p.requires_grad for p in model.parameters())


def test_dilated_stages_keep_their_resolution():
    """The two deepest stages widen their view by dilation 1, 2, 4, 8 and never pool."""
    stage = U2Net("lite").get_submodule("stage6")
    assert isinstance(stage, ResidualUBlock)
    blocks = [stage.get_submodule(f"rebnconv{level}") for level in range(1, 5)]
    assert [block.conv_s1.dilation for block in blocks] == [(1, 1), (2, 2), (4, 4), (8, 8)]
    stage.pool = torch.nn.Identity()  # would change every shape if it were used
    stage.pool.forward = None
    assert stage.eval()(torch.zeros(1, 64, 10, 10)).shape == (1, 64, 10, 10)
