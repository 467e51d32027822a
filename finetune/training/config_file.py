"""A run's arguments as a TOML file: read for --config, and written to every run's folder."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.items import Table

from u2net_human_plugin.errors import DataError

from ..files import write_text
from .config import Option, TrainConfig, options
from .recipe import Recipe, read_recipe, recipe_of
from .toml import nearest, read_toml

#: In every run's folder.
RUN_FILE = "run.toml"

_HEAD = """\
All options of this run of `train`. A copy, changed or not, starts another run:

    python -m finetune train --config run.toml --out ANOTHER

Options on the command line override it. Paths are relative to the folder in which the command
runs. `--resume` reads last.json, and this file only if --config names it."""
_WIDTH = 96


def read_config(path: Path) -> dict[str, Any]:
    """The arguments that a TOML file gives, by the names of :class:`TrainConfig`'s fields.

    Raises:
        DataError: it is not TOML, or a key or a value is wrong; names the file, the key, the
            value and what is expected.
    """
    known = {option.key: option for option in options()}
    values = {}
    for key, value in read_toml(path).items():
        option = known.get(key.replace("_", "-"))
        if option is None:
            raise DataError(
                f"{path}: {key} = {_shown(value)}: there is no such option; did you mean "
                f"{nearest(key, known)}? "
                "`train --help` lists them all."
            )
        try:
            values[option.name] = _parsed(option, value)
        except DataError as error:
            raise DataError(f"{path}: {key}: {error}") from None
        except (TypeError, ValueError):
            raise DataError(
                f"{path}: {key} = {_shown(value)}: expected {_accepted(option)}; correct it, or "
                "remove the line for the default."
            ) from None
    return values


def write_config(config: TrainConfig, path: Path) -> None:
    """Write all arguments with their help; a file with the same arguments stays as it is."""
    try:
        if TrainConfig(**read_config(path)) == config:
            return
    except (DataError, TypeError):  # no such file, a wrong one, or an incomplete one
        pass
    document = tomlkit.document()
    _comment(document, _HEAD)
    for option in options():
        value = getattr(config, option.name)
        if isinstance(value, Recipe):
            continue
        document.add(tomlkit.nl())
        _comment(document, f"{option.info.help} Expected: {_accepted(option)}.")
        if value is None:
            _comment(document, f"{option.key} = ...")
        else:
            document.add(option.key, _item(value))
    # Last, because a table ends where the next one begins.
    document.add(tomlkit.nl())
    document.add("recipe", _recipe_table(config.recipe))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, tomlkit.dumps(document))


def _recipe_table(recipe: Recipe) -> Table:
    table = tomlkit.table()
    _comment(
        table, 'How pictures are drawn and changed. Instead of the table: recipe = "FILE.toml".'
    )
    for name, hint in get_type_hints(Recipe, include_extras=True).items():
        table.add(tomlkit.nl())
        _comment(table, get_args(hint)[1])
        table.add(name, _item(getattr(recipe, name)))
    return table


def _comment(to: TOMLDocument | Table, text: str) -> None:
    for paragraph in text.splitlines():
        if not paragraph:
            to.add(tomlkit.nl())
        for line in textwrap.wrap(paragraph, _WIDTH):
            to.add(tomlkit.comment(line))


def _item(value: Any) -> Any:
    """A value as TOML, in one line."""
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table
    if isinstance(value, tuple):
        return tomlkit.item([str(v) if isinstance(v, Path) else v for v in value])
    return tomlkit.item(str(value) if isinstance(value, Path) else value)


def _shown(value: Any) -> str:
    return textwrap.shorten(repr(value), 60)


def _accepted(option: Option) -> str:
    """Which values an option takes, in words."""
    kind = option.type
    if get_origin(kind) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(kind))
    if kind in (int, float):
        low, high = option.info.min, option.info.max
        limits = (f" from {low}" if low is not None else "") + (f" to {high}" if high else "")
        return ("a whole number" if kind is int else "a number") + limits
    return {
        dict[str, float]: "a number above 0 for each source, such as { ccp = 3 }",
        tuple[Path, ...]: 'paths, such as ["data/manifest.jsonl"]',
        Recipe: "a table, or the name of a TOML file",
    }.get(kind, "a path, in quotes")


def _parsed(option: Option, value: Any) -> Any:
    """A plain value as the field's own type.

    Raises:
        TypeError, ValueError: it is not what :func:`_accepted` describes.
        DataError: it is a wrong recipe.
    """
    kind = option.type
    if get_origin(kind) is Literal:
        return get_args(kind)[get_args(kind).index(value)]
    if kind in (int, float):
        return _number(kind, value, option.info.min, option.info.max)
    if kind == dict[str, float]:
        return {
            source: _number(float, pixels, 1e-9, None) for source, pixels in dict(value).items()
        }
    if kind == Recipe:
        return read_recipe(Path(value)) if isinstance(value, str) else recipe_of(dict(value))
    if kind == tuple[Path, ...]:
        return tuple(map(_path, [value] if isinstance(value, str) else value))
    return _path(value)


def _number(kind: type, value: Any, low: float | None, high: float | None) -> Any:
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise TypeError
    lowest, highest = -math.inf if low is None else low, math.inf if high is None else high
    if not (lowest <= value <= highest and math.isfinite(value)):
        raise ValueError
    return kind(value)


def _path(value: Any) -> Path:
    if not isinstance(value, str):
        raise TypeError
    return Path(value)
