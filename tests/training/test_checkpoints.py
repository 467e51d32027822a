"""What a run keeps: the average of its weights, and the commit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.training import checkpoints
from u2net_human_plugin.finetune.training.checkpoints import official_state, weight_average
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


@torch.no_grad()
def test_average_of_weights_is_that_of_the_formula() -> None:
    """Each step the decay's part of the average, which warms up, and the weights' for the rest."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    average = weight_average(network, 0.6)
    expected = {name: value.double() for name, value in network.state_dict().items()}
    for step in range(1, 20):
        for value in (*network.parameters(), network[1].running_mean, network[1].running_var):
            value.copy_(torch.randn_like(value))
        network[1].num_batches_tracked += 7
        average.update_parameters(network)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    counted = average.module.state_dict()["1.num_batches_tracked"]
    assert counted == network[1].num_batches_tracked == 19 * 7
    del expected["1.num_batches_tracked"]
    for name, value in expected.items():
        torch.testing.assert_close(average.module.state_dict()[name].double(), value)
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_official_state_is_complete() -> None:
    """Also that of a network that was trained without its full-resolution parts."""
    state = official_state(U2Net("lite", "half"))
    U2Net("lite", "full").load_state_dict(state, strict=True)


@pytest.mark.parametrize("free", [0, 1 << 40])
def test_a_failed_write_says_why_and_what_is_left(
    free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is called so, which torch does not; --resume is offered if it can go on."""

    def fail(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")

    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    reason = "the disk is full" if free == 0 else r"\[enforce fail .*"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        first = rf"last\.pt: cannot be written \({reason}\)\. Make .*, then start again"
        with pytest.raises(DataError, match=first):
            checkpoints.save(tmp_path / "last.pt", {}, {})
        (tmp_path / "last.pt").touch()
        later = rf"\({reason}\); what was there before is still there\. .* go on with --resume"
        with pytest.raises(DataError, match=later):
            checkpoints.save(tmp_path / "last.pt", {}, {})
