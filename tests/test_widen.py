"""A widened lite network gives the lite network's answers, and can learn from there."""

import pytest

torch = pytest.importorskip("torch")

from u2net_human_plugin.finetune.training.widen import widened  # noqa: E402

from u2net_human_plugin.checkpoint import load_checkpoint, load_state_dict  # noqa: E402
from u2net_human_plugin.errors import WeightsError  # noqa: E402
from u2net_human_plugin.u2net import U2Net, fold_batch_norm  # noqa: E402


def lite() -> U2Net:
    torch.manual_seed(3)
    model = U2Net("lite", "half")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def test_the_function_is_preserved():
    """Every output of the wide network equals the lite one's, up to float64's rounding."""
    narrow, picture = fold_batch_norm(lite()), torch.rand(1, 3, 96, 64, dtype=torch.float64)
    wide = widened(narrow).double()
    expected = narrow.double()(picture)
    assert wide.variant == "wide"
    assert sum(p.numel() for p in wide.parameters()) > 5 * sum(
        p.numel() for p in narrow.parameters()
    )
    for ours, theirs in zip(wide(picture), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_new_channels_can_learn():
    """What reads a new channel has a gradient from the first step on."""
    wide = widened(lite()).train()
    wide(torch.rand(1, 3, 64, 64))[0].square().mean().backward()
    reader = wide.stage4d.rebnconvin.conv_s1.weight
    assert reader.grad[:, 64:192].abs().max() > 0  # what stage 5 of "wide" has more than lite's


def test_narrower_is_refused():
    """A full network does not fit into a wide one."""
    with pytest.raises(ValueError, match="narrower"):
        widened(U2Net("full", "half").eval(), "wide")


@pytest.mark.parametrize("folded", [False, True])
def test_checkpoints_of_the_wide_variant_are_recognised(folded, tmp_path):
    """A state dict says by its shapes which variant it is of."""
    model = U2Net("wide").eval()
    if folded:
        fold_batch_norm(model)
    torch.save(model.state_dict(), tmp_path / "wide.pth")
    assert load_checkpoint(tmp_path / "wide.pth").variant == "wide"


def test_a_damaged_wide_checkpoint_is_named():
    """What looks wide and does not fit is an error that says so."""
    state = U2Net("wide").state_dict()
    del state["side3.weight"]
    with pytest.raises(WeightsError, match="looks like a wide"):
        load_state_dict(state, "half", origin="damaged.pth")
