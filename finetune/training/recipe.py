"""How training pictures are drawn and changed: every probability and range, in one place.

A run's record holds them all. Others than the defaults come from a TOML file, in which only what
differs has to stand:

    scenes = 0.4
    zoom = [0.6, 1.1]
    sources = { street = 0.5 }
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from u2net_human_plugin.errors import DataError

from .toml import nearest, read_toml

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """How pictures are drawn and changed; probabilities are 0…1, ranges (lowest, highest)."""

    scenes: Annotated[
        float, "Share of the batch whose ground is a scene with nobody in it; the rest are photos."
    ] = 0.3
    empty: Annotated[float, "Of those scenes, how many stay empty."] = 0.45
    single: Annotated[float, "Of those scenes, how many get a single person."] = 0.2
    most_people: Annotated[int, "At most as many people are pasted into one picture."] = 4
    joined: Annotated[float, "How often a photo gets one or two more people."] = 0.12
    things: Annotated[float, "How often any picture gets one or two things."] = 0.35
    whole: Annotated[float, "How often a picture is used whole."] = 0.4
    tight: Annotated[float, "How often it is cut down to its people."] = 0.15
    zoom: Annotated[
        Range, "Size of the part that is used otherwise, as a share of the picture's side."
    ] = (0.5, 1.15)
    stretch: Annotated[float, "Log of the change of width against height."] = 0.2
    turn: Annotated[float, "Standard deviation of the angle, in radians."] = 0.06
    lying: Annotated[float, "How often a picture lies on its side or stands on its head."] = 0.06
    height: Annotated[Range, "Height of a pasted person, as a share of the picture's."] = (0.1, 1.2)
    light: Annotated[
        float,
        "How much the light varies: 1 is a factor of 1.5 in brightness, in contrast and so on.",
    ] = 0.8
    grey: Annotated[float, "How often a picture loses its colours."] = 0.05
    dark: Annotated[float, "How often it is dark."] = 0.06
    blurred: Annotated[float, "How often it is out of focus."] = 0.12
    coarse: Annotated[float, "How often it is of low resolution."] = 0.15
    noisy: Annotated[float, "How often it is noisy."] = 0.2
    jpeg: Annotated[float, "How often it has been saved as JPEG."] = 0.4
    quality: Annotated[Range, "And with which quality, of 100."] = (8.0, 85.0)
    sources: Annotated[
        dict[str, float],
        "What share of the pictures of a kind a source is, by its name; those that are not named "
        "get their part of the rest, by their number of pictures.",
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if problem := _problem(asdict(self)):
            raise DataError(problem)


def read_recipe(path: Path) -> Recipe:
    """The recipe of a TOML file; what it leaves out is the default.

    Raises:
        DataError: it is no TOML, or holds what no recipe has; names the file and the key.
    """
    content = read_toml(path)
    try:
        return recipe_of(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def recipe_of(content: Mapping[str, Any]) -> Recipe:
    """The recipe of plain values, as TOML and JSON hold them.

    Raises:
        DataError: a key or a value is none of a recipe's.
    """
    known = asdict(Recipe())
    for key, value in content.items():
        if key not in known:
            raise DataError(
                f"{key!r} is unknown; did you mean {nearest(key, known)}? A recipe has "
                f"{', '.join(known)}."
            )
        if not _alike(value, known[key]):
            raise DataError(f"{key} is {value!r}; expected something like {known[key]!r}.")
    plain: dict[str, Any] = {
        key: tuple(map(float, value)) if isinstance(known[key], tuple) else value
        for key, value in content.items()
    }
    return Recipe(**plain)


def _alike(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
    if isinstance(default, dict):
        return isinstance(value, Mapping) and all(map(_is_number, value.values()))
    if isinstance(default, int):
        return isinstance(value, int) and not isinstance(value, bool)
    return _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _problem(values: Mapping[str, Any]) -> str | None:
    """What is out of range, in words."""
    for key in _SHARES:
        if not 0 <= values[key] <= 1:
            return f"{key} is {values[key]}; expected a probability, 0…1."
    for key, (low, high) in ((key, values[key]) for key in _RANGES):
        if not 0 < low <= high:
            return f"{key} is {low}, {high}; expected two positive numbers, the lower one first."
    for source, share in values["sources"].items():
        if not 0 <= share <= 1:
            return f"the share of the source {source} is {share}; expected 0…1."
    if values["most_people"] < 1:
        return f"most_people is {values['most_people']}; expected at least 1."
    return None


_SHARES = (
    *("scenes", "empty", "single", "joined", "things", "whole", "tight", "lying"),
    *("grey", "dark", "blurred", "coarse", "noisy", "jpeg"),
)
_RANGES = ("zoom", "height", "quality")
