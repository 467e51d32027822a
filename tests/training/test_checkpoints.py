"""What a run keeps: the average of its weights, and the commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from u2net_human_plugin.finetune.training import checkpoints
from u2net_human_plugin.finetune.training.checkpoints import (
    Ema,
    official_state,
)
from u2net_human_plugin.u2net import U2Net


@pytest.mark.process
def test_commit_is_that_of_this_project_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed below somebody's own checkout, no commit is recorded."""
    module = tmp_path / "site-packages" / "finetune" / "training" / "checkpoints.py"
    module.parent.mkdir(parents=True)
    for words in (
        ["init"],
        [*["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "a"]],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)  # noqa: S607
    monkeypatch.setattr(checkpoints, "__file__", str(module))
    assert checkpoints.git_commit() is None
    (tmp_path / "site-packages" / "pyproject.toml").touch()
    assert checkpoints.git_commit() is not None


def test_average_of_constant_weights_is_those_weights() -> None:
    """EMA of a network that does not change is the network; the official state is complete."""
    model = U2Net("lite", "half")
    ema = Ema(model, 0.9)
    for _ in range(3):
        ema.update(model)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(ema.model.state_dict()[key], value)
    U2Net("lite", "full").load_state_dict(official_state(model), strict=True)
