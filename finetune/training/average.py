r"""python -m finetune average: the weighted mean of starting weights and fine-tuned ones.

It keeps most of what fine-tuning gained and brings back some of what it lost on pictures unlike
the training set (Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022, arXiv:2109.01903).

    python -m finetune average u2netp.onnx runs/people/u2net_finetuned.pth \
        --share 0.7 --temperature 0.6 --out runs/blend/u2net_finetuned.pth

The mean of two networks is less confident than both: a haze of low alpha remains in backgrounds,
and people turn slightly transparent. A temperature below one corrects that (Guo et al., "On
Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599) and moves no contour; take the
one with the lowest mean absolute error in `evaluate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from u2net_human_plugin.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def average(
    before: Annotated[Path, typer.Argument(help="The weights that fine-tuning started from.")],
    after: Annotated[Path, typer.Argument(help="The fine-tuned weights.")],
    out: Annotated[Path, typer.Option(help="The .pth to write, with a JSON twin.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="How much of AFTER.")] = 0.7,
    temperature: Annotated[
        float, typer.Option(min=0.1, max=10, help="What logits are divided by.")
    ] = 1.0,
) -> None:
    """Average two checkpoints of one run, weight by weight."""
    from u2net_human_plugin.checkpoint import load_checkpoint
    from u2net_human_plugin.u2net import fold_batch_norm

    from . import checkpoints

    # Folded, because statistics and scales must not be averaged separately.
    first, second = (fold_batch_norm(load_checkpoint(path)) for path in (before, after))
    if first.variant != second.variant:
        raise WeightsError(
            f"{before} is the {first.variant} network, {after} the {second.variant}; only two "
            "of a kind can be averaged."
        )
    earlier = checkpoints.record_of(before)
    record = checkpoints.record_of(after) or {}
    step: dict[str, Any] = {"before": "/".join(before.parts[-2:])}
    step |= {"share": share, "temperature": temperature}
    if earlier is not None and earlier != record.get("started_from"):
        step["training"] = earlier
    record["averaged"] = [*record.get("averaged", ()), step]
    start, end = first.state_dict(), second.state_dict()
    blend = {key: start[key].lerp(end[key], share) for key in end}
    second.load_state_dict(divided_logits(blend, temperature))
    checkpoints.save(out, checkpoints.official_state(second), record)
    typer.echo(f"{out}")


def divided_logits(state: Mapping[str, Tensor], temperature: float) -> dict[str, Tensor]:
    """A network's weights that give the logits of all outputs divided by ``temperature``."""
    # The fusion, outconv, takes the sides' logits, divided already.
    return {
        key: value / temperature if key.startswith("side") or key == "outconv.bias" else value
        for key, value in state.items()
    }
