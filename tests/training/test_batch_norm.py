"""Live batch normalisation from folded weights."""

from __future__ import annotations

import pytest
import torch

from u2net_human_plugin.finetune.training.batch_norm import calibrate
from u2net_human_plugin.u2net import U2Net


@pytest.mark.parametrize("folded", [True, False])
def test_calibration_measures_statistics_and_keeps_the_function(folded: bool) -> None:
    """Live batch normalisation starts from the very function of the starting weights."""
    from u2net_human_plugin.u2net import fold_batch_norm

    torch.manual_seed(0)
    model = U2Net("lite", "half").eval()
    if folded:
        fold_batch_norm(model)
    batches = [torch.rand(2, 3, 64, 64) for _ in range(2)]
    with torch.no_grad():
        before = model(batches[0])[0]
        calibrate(model, batches)
        after = model.eval()(batches[0])[0]
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    norm = model.stage1.rebnconvin.bn_s1
    assert norm.running_var.std() > 0
    with torch.no_grad():
        output = model.stage1.rebnconvin.conv_s1(torch.cat(batches))
    torch.testing.assert_close(norm.running_mean, output.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
