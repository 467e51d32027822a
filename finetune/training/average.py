r"""python -m finetune average: several networks as one, the weighted mean of their logits.

    python -m finetune average "u2netp.onnx?size=320" \
        "runs/mine/u2net_finetuned.pth?size=384&weight=2" --out runs/mean/u2net_average.pth

Networks that err differently are right more often together than each of them, at the price of
all their times. `evaluate` and `export` take the file as they take any checkpoint; to train on,
take a member.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl

import typer

from u2net_human_plugin.errors import OptionError, PluginError, WeightsError
from u2net_human_plugin.preprocess import SIZE


def average(
    members: Annotated[
        list[str],
        typer.Argument(help="Checkpoints: PATH?size=384&weight=2; size in multiples of 32."),
    ],
    out: Annotated[Path, typer.Option(help="The .pth to write, with a JSON twin.")],
) -> None:
    """Put several networks into one checkpoint that answers with the mean of their logits."""
    from u2net_human_plugin.checkpoint import average_content, load_checkpoint
    from u2net_human_plugin.u2net import Average, Member

    from . import checkpoints

    try:
        read, records = [], []
        for spec in members:
            name, size, weight = _parsed(spec)
            network = load_checkpoint(Path(name), "half")
            read.append(Member(network, size, weight))
            record = checkpoints.record_of(Path(name))
            about = {"file": "/".join(Path(name).parts[-2:]), "variant": network.variant}
            records.append({**about, "size": size, "weight": weight, "training": record})
        if len(read) < 2:
            raise WeightsError(f"{members[0]}: one network is no average; name two or more.")
    except PluginError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    checkpoints.save(out, average_content(Average(read)), {"average_of": records})
    typer.echo(f"{out}")


def _parsed(spec: str) -> tuple[str, int, float]:
    name, _, query = spec.partition("?")
    given = {"size": str(SIZE), "weight": "1", **dict(parse_qsl(query, keep_blank_values=True))}
    try:
        size, weight = int(given.pop("size")), float(given.pop("weight"))
    except ValueError:
        size, weight = 0, 0.0
    if given or size <= 0 or size % 32 or not 0 < weight < float("inf"):
        raise OptionError(
            f"{spec}: expected PATH?size=S&weight=W with S a multiple of 32 and W above 0."
        )
    return name, size, weight
