"""The learning rate over a run."""

from __future__ import annotations

import itertools

import pytest

from u2net_human_plugin.finetune.training.run import lr_at


def test_rate_warms_up_and_ends_near_zero() -> None:
    """Linear up to the peak, cosine down to a hundredth."""
    rates = [lr_at(step, 100, 1.0, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[9] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))
