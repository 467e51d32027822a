r"""python -m finetune ensemble: several networks as one, the weighted sum of their logits.

    python -m finetune ensemble "runs/mine/u2net_finetuned.pth?size=384" \
        "u2netp.onnx?size=320&limit=2" --out runs/both/u2net_ensemble.pth

Networks that err differently are right more often together than each alone, and take as much time
as all of them. The logits of a member with a limit are clipped to it: the member decides where the
others are unsure, and is outvoted elsewhere. `evaluate` and `export` take the file like any
checkpoint; `train` starts from a single member.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl

import typer

from u2net_human_plugin.errors import OptionError, WeightsError
from u2net_human_plugin.preprocess import SIZE
from u2net_human_plugin.settings import KEY, settings_of


def ensemble(
    members: Annotated[
        list[str],
        typer.Argument(help="Checkpoints, each PATH?size=384&weight=1&limit=2, all optional."),
    ],
    out: Annotated[Path, typer.Option(help="The .pth to write, with a JSON twin.")],
) -> None:
    """Put several networks into one checkpoint that answers with the sum of their logits."""
    from u2net_human_plugin.checkpoint import ensemble_content, load_checkpoint
    from u2net_human_plugin.u2net import Ensemble, Member

    from . import checkpoints

    read, records = [], []
    for spec in members:
        name, settings = _parsed(spec)
        network = load_checkpoint(Path(name), "half")
        size, weight = int(settings["size"]), settings["weight"]
        read.append(Member(network, size, weight, settings["limit"]))
        record = checkpoints.record_of(Path(name))
        about = {"file": "/".join(Path(name).parts[-2:]), "variant": network.variant}
        limit = settings["limit"] if math.isfinite(settings["limit"]) else None
        numbers = {"size": size, "weight": weight, "limit": limit}
        records.append({**about, **numbers, "training": record})
    if len(read) < 2:
        raise WeightsError(f"{members[0]}: one network is no ensemble; name two or more.")
    made = Ensemble(read)
    # Its answers are steeper than its members', whose thresholds are therefore wrong for it.
    about_all = {"ensemble_of": records, KEY: asdict(settings_of(None, made.size))}
    checkpoints.save(out, ensemble_content(made), about_all)
    typer.echo(f"{out}")


def _parsed(spec: str) -> tuple[str, dict[str, float]]:
    """Path and settings of a member."""
    name, _, query = spec.partition("?")
    settings = {"size": float(SIZE), "weight": 1.0, "limit": math.inf}
    try:
        given = {key: float(value) for key, value in parse_qsl(query, keep_blank_values=True)}
    except ValueError:
        given = {"size": 0.0}
    right = given.keys() <= settings.keys() and all(value > 0 for value in given.values())
    settings |= given
    if not right or settings["size"] % 32 or not math.isfinite(settings["weight"]):
        raise OptionError(
            f"{spec}: expected PATH?size=S&weight=W&limit=L with S a multiple of 32 and numbers "
            "above 0."
        )
    return name, settings
