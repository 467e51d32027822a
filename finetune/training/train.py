"""The command line of `python -m finetune train`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from u2net_human_plugin.preprocess import SIZE


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and logs.")],
    manifest: Annotated[
        list[Path], typer.Option(help="Training data, as written by prepare; may be repeated.")
    ] = [],  # noqa: B006 - typer's way to say "none"
    init: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads annotations at run time, also on Python 3.10
        typer.Option(help="Starting weights: .pth (official, ours) or official .onnx."),
    ] = None,
    variant: Annotated[
        str,
        typer.Option(
            help="full (44.0 M), wide (6.7 M) or lite (1.13 M parameters). wide starts from lite "
            "weights, too."
        ),
    ] = "lite",
    decoder: Annotated[
        str,
        typer.Option(
            help="half: end at side output d2, 2.2 times faster; full: train everything. "
            "[default: full for full, else half]"
        ),
    ] = "",
    size: Annotated[
        int, typer.Option(min=32, help="Input side in pixels; the paper crops 288.")
    ] = SIZE,
    batch: Annotated[
        int, typer.Option(min=1, help="Pictures a step, over all processes; paper: 12.")
    ] = 8,
    epochs: Annotated[
        int, typer.Option(min=1, help="How often --epoch-size pictures; paper: 600,000 steps.")
    ] = 50,
    epoch_size: Annotated[
        int, typer.Option(min=0, help="Pictures an epoch, of all kinds. [default: one a photo]")
    ] = 0,
    rate: Annotated[
        float, typer.Option(min=0, help="Adam's peak rate; paper, from nothing: 1e-3.")
    ] = 3e-4,
    warmup: Annotated[int, typer.Option(min=0, help="Steps of linear warm-up.")] = 100,
    ema: Annotated[
        float, typer.Option(min=0, max=1, help="Decay of the weights' moving average.")
    ] = 0.998,
    edge: Annotated[
        float, typer.Option(min=0, help="Extra weight of the loss at contours; paper: 0.")
    ] = 2.0,
    iou: Annotated[
        float, typer.Option(min=0, help="Factor of a soft IoU loss beside BCE; paper: 0.")
    ] = 0.0,
    batch_norm: Annotated[
        str, typer.Option(help="frozen (folded; small batches) or live (batches from 16 on).")
    ] = "frozen",
    freeze_encoder: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the run in which the encoder stays as it is."),
    ] = 0.0,
    coarse: Annotated[
        list[str],
        typer.Option(help="SOURCE=PIXELS: masks of this source have steps of about PIXELS."),
    ] = [],  # noqa: B006 - typer's way to say "none"
    recipe: Annotated[
        Optional[Path],  # noqa: UP045 - as above
        typer.Option(
            help="TOML file: how pictures are drawn, composed and changed, where that differs "
            "from the defaults in training/recipe.py."
        ),
    ] = None,
    side: Annotated[
        int,
        typer.Option(
            min=0,
            help="Side of the decoded pictures that batches are cut out of. "
            "[default: a tenth more than --size]",
        ),
    ] = 0,
    remember: Annotated[
        Optional[Path],  # noqa: UP045 - as above
        typer.Option(help="Weights whose answers a second head keeps giving, against forgetting."),
    ] = None,
    remember_weight: Annotated[
        float, typer.Option(min=0, help="Factor of that head's loss.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Decides every random choice.")] = 0,
    full_decoder_steps: Annotated[
        int, typer.Option(min=0, help="Steps that fit the rest after a half-decoder run.")
    ] = 100,
    validation_pictures: Annotated[
        int, typer.Option(min=0, help="Per validation set; 0: none.")
    ] = 48,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 200,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50,
    cache: Annotated[
        Optional[Path],  # noqa: UP045 - as above
        typer.Option(
            help="Folder for decoded pictures, which other runs find there.  [default: in --out, "
            "until the run is complete]"
        ),
    ] = None,
    workers: Annotated[
        Optional[int],  # noqa: UP045 - as above
        typer.Option(hidden=True, help="Ignored: pictures are decoded once."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one) or cpu.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, or bf16: convolutions in bfloat16, twice as fast on CPUs with AVX512-BF16 "
            "or AMX and on GPUs."
        ),
    ] = "fp32",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, whose arguments hold but for those given anew; "
            "more --epochs make its schedule longer.",
        ),
    ] = False,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Train no further; make the result of a stopped run's best."),
    ] = False,
    minutes: Annotated[
        Optional[float],  # noqa: UP045 - as above
        typer.Option(min=0, help="Stop in order after so long, with status 130; --resume goes on."),
    ] = None,
) -> None:
    """Fine-tune U²-Net; the result is OUT/u2net_finetuned.pth."""
    choices = {
        "variant": (variant, ("full", "wide", "lite")),
        "decoder": (decoder or ("full" if variant == "full" else "half"), ("full", "half")),
        "batch-norm": (batch_norm, ("frozen", "live")),
        "device": (device, ("auto", "cpu")),
        "precision": (precision, ("fp32", "bf16")),
    }
    for name, (value, valid) in choices.items():
        if value not in valid:
            raise typer.BadParameter(f"--{name} is {value!r}; choose from {', '.join(valid)}.")
    if batch_norm == "live" and batch < 16:
        typer.echo(f"note: with --batch {batch}, live statistics are noisy", err=True)
    if workers is not None:
        typer.echo("note: --workers is ignored; pictures are decoded once, then kept", err=True)
    pixels = parse_coarse(coarse)

    from .memory import keep_freed_memory

    keep_freed_memory()

    from . import loop, run
    from .recipe import Recipe, read_recipe

    options: dict[str, Any] = {
        "manifests": tuple(manifest),
        "init": init,
        "variant": variant,
        "decoder": choices["decoder"][0],
        "size": size,
        "batch": batch,
        "epochs": epochs,
        "epoch_size": epoch_size,
        "rate": rate,
        "warmup": warmup,
        "ema": ema,
        "edge": edge,
        "iou": iou,
        "batch_norm": batch_norm,
        "freeze_encoder": freeze_encoder,
        "coarse": pixels,
        "recipe": read_recipe(recipe) if recipe else Recipe(),
        "side": side,
        "remember": remember,
        "remember_weight": remember_weight,
        "seed": seed,
        "full_decoder_steps": full_decoder_steps,
        "validation_pictures": validation_pictures,
        "validate_every": validate_every,
        "save_every": save_every,
        "cache": cache,
        "device": device,
        "precision": precision,
    }
    earlier = run.saved_config(out) if resume or finish else None
    if earlier is not None:
        given = _given(context)
        anew = {name: value for name, value in options.items() if name in given}
        config = dataclasses.replace(earlier, out=out, **anew)
    elif manifest:
        config = run.TrainConfig(out=out, **options)
    else:
        raise typer.BadParameter("--manifest is missing: what should be trained on?")
    final = loop.train(config, resume=resume, finish=finish, minutes=minutes)
    if final is None:
        raise typer.Exit(130)
    typer.echo(f"{final}")


def _given(context: typer.Context) -> set[str]:
    """Which arguments of a run stand on the command line."""
    names = {
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    return {{"manifest": "manifests"}.get(name, name) for name in names}


def parse_coarse(entries: list[str]) -> dict[str, float]:
    """{"ccp": 3} from ["ccp=3"]."""
    result = {}
    for entry in entries:
        source, _, pixels = entry.partition("=")
        try:
            result[source] = float(pixels)
            if not 0 < result[source] < math.inf:
                raise ValueError
        except ValueError:
            raise typer.BadParameter(
                f"--coarse {entry!r}: expected SOURCE=PIXELS, e.g. ccp=3."
            ) from None
    return result
