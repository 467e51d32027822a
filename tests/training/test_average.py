"""`average`: between two checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from u2net_human_plugin.checkpoint import load_checkpoint
from u2net_human_plugin.finetune.training.average import average


@pytest.mark.process
def test_an_average_lies_between_two_checkpoints(finished: Path, tmp_path: Path) -> None:
    """Shares 0 and 1 are the two networks themselves; the twin says what was mixed from what."""
    before, after = finished / "best.pt", finished / "u2net_finetuned.pth"
    out = tmp_path / "blend.pth"
    picture = torch.rand(1, 3, 64, 64)
    for share, expected in ((0.0, before), (1.0, after)):
        average(before, after, out, share)
        with torch.no_grad():
            blended, original = load_checkpoint(out)(picture), load_checkpoint(expected)(picture)
        torch.testing.assert_close(blended[0], original[0], rtol=1e-3, atol=1e-4)
    record = json.loads(out.with_suffix(".json").read_text())
    step = {"before": f"{finished.name}/best.pt", "share": 1.0, "temperature": 1.0}
    step["training"] = json.loads((finished / "best.json").read_text())
    del step["training"]["losses"]
    assert record["averaged"] == [step]
    assert step["training"]["arguments"] == record["arguments"]
    average(before, out, tmp_path / "again.pth", 0.5)
    record = json.loads((tmp_path / "again.json").read_text())
    assert record["averaged"] == [step, {**step, "share": 0.5}]


@pytest.mark.process
def test_temperature_divides_the_logits_of_all_outputs(finished: Path, tmp_path: Path) -> None:
    """average --temperature 0.5 doubles them: no contour moves, everything is surer."""
    weights = finished / "u2net_finetuned.pth"
    out = tmp_path / "sure.pth"
    average(weights, weights, out, 1.0, 0.5)
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        sure, original = load_checkpoint(out)(picture), load_checkpoint(weights)(picture)
    assert len(sure) == len(original) == 7
    for one, other in zip(sure, original, strict=True):
        torch.testing.assert_close(one, 2 * other, rtol=1e-3, atol=1e-3)
