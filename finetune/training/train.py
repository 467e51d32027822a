"""The command line of `python -m finetune train`, made from the fields of TrainConfig."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .config import FORMER_NAMES, Option, TrainConfig, options
from .recipe import Recipe, read_recipe


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` a parameter for every option of a run, in place of its ``**values``."""
    signature = inspect.signature(command, eval_str=True)
    own = [entry for entry in signature.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
    former = [_parameter(option, name) for name, option in _former().items()]
    parameters = [*map(_parameter, options()), *former, *own]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def _former() -> dict[str, Option]:
    """The options that have a former name, by that name."""
    known = {option.name: option for option in options()}
    return {name: known[today] for name, today in FORMER_NAMES.items()}


def _parameter(option: Option, former: str = "") -> inspect.Parameter:
    """An option as the parameter of a command."""
    default, info = option.default, copy.copy(option.info)
    # The command line's types for options that are not plain values.
    kind, default = {
        tuple[Path, ...]: (list[Path], []),
        dict[str, float]: (list[str], []),
        Recipe: (Path, None),
    }.get(option.type, (option.type, None if former else default))
    if former:
        info.hidden = True
    if default is None:
        kind = Optional[kind]  # noqa: UP045 - of a value, not of a name
    return inspect.Parameter(
        former or option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )


@_with_options
def train(
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with any of the options above, such as an earlier run's run.toml; "
            "those on the command line win over it."
        ),
    ] = None,
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
        float | None,
        typer.Option(min=0, help="Stop in order after so long, with status 130; --resume goes on."),
    ] = None,
    context: typer.Context,
    **values: Any,
) -> None:
    """Fine-tune U²-Net; the result is OUT/u2net_finetuned.pth."""
    from .memory import keep_freed_memory

    keep_freed_memory()

    from ..evaluation.run_report import result_of
    from . import checkpoints, loop, run
    from .config_file import read_config

    given = (read_config(config) if config else {}) | _given(context, values)
    if "out" not in given:
        raise typer.BadParameter("--out is missing: where should checkpoints and logs go?")
    earlier = run.saved_config(given["out"]) if resume or finish else None
    if earlier is None and not given.get("manifests"):
        if resume or finish:
            raise run.no_run(given["out"])
        raise typer.BadParameter("--manifest is missing: what should be trained on?")
    settings = dataclasses.replace(earlier, **given) if earlier else TrainConfig(**given)
    if settings.batch_norm == "live" and settings.batch_size < 16:
        note = f"note: with --batch-size {settings.batch_size}, live statistics are noisy"
        typer.echo(note, err=True)
    final = loop.train(settings, resume=resume, finish=finish, minutes=minutes)
    if final is None:
        raise typer.Exit(130)
    if record := checkpoints.record_of(final):
        typer.echo(f"result: {result_of(record)}")
    typer.echo(f"{final}")


def _given(context: typer.Context, values: dict[str, Any]) -> dict[str, Any]:
    """The options that the command line gives, as fields of :class:`TrainConfig`."""
    given = {}
    for name, option in {**_former(), **{option.name: option for option in options()}}.items():
        if getattr(context.get_parameter_source(name), "name", "") != "COMMANDLINE":
            continue
        if name in FORMER_NAMES:
            typer.echo(f"note: --{name} is called --{option.key} now", err=True)
        value = values[name]
        if option.type == tuple[Path, ...]:
            value = tuple(value)
        elif option.type == dict[str, float]:
            value = parse_coarse(value)
        elif option.type == Recipe:
            value = read_recipe(value)
        given[option.name] = value
    return given


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
