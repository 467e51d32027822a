"""How training pictures are drawn and changed: every probability and range, in one place.

A run's record holds them all. A TOML file gives other values than the defaults; it names only what
differs:

    scenes = 0.4
    zoom = [0.6, 1.1]
    sources = { street = 0.5 }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    joined: Annotated[float, "How often a photo gets more people pasted in."] = 0.12
    most_joined: Annotated[int, "And at most how many, of up to most_people."] = 2
    distractors: Annotated[float, "How often any picture gets distractors pasted in."] = 0.35
    most_distractors: Annotated[int, "And at most how many, of up to most_people."] = 2
    mirrored: Annotated[float, "How often a picture, or what is pasted in, is mirrored."] = 0.5
    whole: Annotated[float, "How often a picture is used whole."] = 0.4
    whole_zoom: Annotated[
        Range, "Size of the part that is used then, as a share of the picture's side."
    ] = (0.95, 1.05)
    tight: Annotated[float, "How often it is cut down to its people."] = 0.15
    tight_room: Annotated[
        Range, "Size of the part that is used then, as a multiple of the people's."
    ] = (1.02, 1.8)
    tight_least: Annotated[float, "Least size of that part, as a share of the picture's side."] = (
        0.25
    )
    tight_shift: Annotated[
        float, "How far its middle is from the people's at most, as a share of half its size."
    ] = 0.15
    zoom: Annotated[
        Range, "Size of the part that is used otherwise, as a share of the picture's side."
    ] = (0.5, 1.15)
    stretch: Annotated[float, "Log of the change of width against height."] = 0.2
    turn: Annotated[float, "Standard deviation of the angle, in radians."] = 0.06
    lying: Annotated[float, "How often a picture lies on its side or stands on its head."] = 0.06
    canvas: Annotated[
        Range,
        "Width by height of the picture that a square sample stands for when it is pasted into.",
    ] = (0.6, 1.8)
    height: Annotated[Range, "Height of what is pasted in, as a share of the picture's."] = (
        0.1,
        1.2,
    )
    widest: Annotated[float, "Its width at most, as a share of the picture's."] = 1.1
    across: Annotated[
        float, "How far to the left or right of the middle it is at most, as a share of the room."
    ] = 0.9
    standing: Annotated[float, "How often it stands low in the picture."] = 0.6
    standing_at: Annotated[
        Range, "How low then: 0 is in the middle, at 1 its lower end is on the picture's edge."
    ] = (0.3, 1.1)
    floating: Annotated[
        float,
        "How far above or below the middle it is otherwise, at most; 1 is the picture's edge.",
    ] = 0.8
    cut_off: Annotated[
        Range,
        "How low somebody is whom the photo's own edge cut off below: at 1 the cut is on the "
        "picture's edge, at 0.5 the middle is.",
    ] = (0.7, 1.0)
    light: Annotated[
        float,
        "How much the light of the finished picture varies; 1: by all of the next six ranges.",
    ] = 0.8
    light_ground: Annotated[
        float, "The same before anything is pasted in, as a share of light."
    ] = 0.5
    light_pasted: Annotated[float, "The same of what is pasted in, as a share of light."] = 0.7
    gamma: Annotated[Range, "Log of the exponent of all colours."] = (-0.45, 0.45)
    contrast: Annotated[Range, "Log of the factor of contrast."] = (-0.4, 0.35)
    saturation: Annotated[Range, "Log of the factor of saturation."] = (-0.5, 0.35)
    white_balance: Annotated[Range, "Log of the factor of red, of green and of blue."] = (
        -0.15,
        0.15,
    )
    brightness: Annotated[Range, "Log of the factor of brightness."] = (-0.5, 0.25)
    grey: Annotated[float, "How often a picture loses its colours."] = 0.05
    dark: Annotated[float, "How often it is dark."] = 0.06
    darkness: Annotated[Range, "And by which factor."] = (0.15, 0.5)
    blurred: Annotated[float, "How often it is out of focus."] = 0.12
    blur: Annotated[Range, "And by which standard deviation, in pixels of the sample."] = (0.4, 2.2)
    coarse: Annotated[float, "How often it is of low resolution."] = 0.15
    resolution: Annotated[Range, "And of which, as a share of the sample's side."] = (0.12, 0.7)
    noisy: Annotated[float, "How often it is noisy."] = 0.2
    noise: Annotated[float, "And with which standard deviation, itself of a normal deviate."] = 0.04
    jpeg: Annotated[float, "How often it has been saved as JPEG."] = 0.4
    quality: Annotated[Range, "And with which quality, of 100."] = (8.0, 85.0)
    sources: Annotated[
        dict[str, float],
        "What share of the pictures of a kind a source is, by its name; those that are not named "
        "get their part of the rest, by their number of pictures.",
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for problem in _problems(asdict(self)):
            raise DataError(problem)


def read_recipe(path: Path) -> Recipe:
    """The recipe of a TOML file; keys that it leaves out have the defaults.

    Raises:
        DataError: it is not TOML, or a key or a value is wrong; names the file and the key.
    """
    content = read_toml(path)
    try:
        return recipe_of(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def recipe_of(content: Mapping[str, Any]) -> Recipe:
    """The recipe of plain values, as TOML and JSON hold them.

    Raises:
        DataError: a key or a value is wrong.
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


def _problems(values: Mapping[str, Any]) -> Iterator[str]:
    """What is out of range, in words."""
    for key in _SHARES:
        if not 0 <= values[key] <= 1:
            yield f"{key} is {values[key]}; expected a probability, 0…1."
    for key in (*_RANGES, *_SPANS):
        low, high = values[key]
        if low > high:
            yield f"{key} is {low}, {high}; expected two numbers, the lower one first."
        elif key in _RANGES and low <= 0:
            yield f"{key} is {low}, {high}; expected two positive numbers."
    for key in _AMOUNTS:
        if values[key] < 0:
            yield f"{key} is {values[key]}; expected a number from 0 on."
    for key in ("most_people", "most_joined", "most_distractors"):
        if values[key] < 1:
            yield f"{key} is {values[key]}; expected at least 1."
    for source, share in values["sources"].items():
        if not 0 <= share <= 1:
            yield f"the share of the source {source} is {share}; expected 0…1."


_SHARES = (
    *("scenes", "empty", "single", "joined", "distractors", "mirrored", "whole", "tight", "lying"),
    *("standing", "grey", "dark", "blurred", "coarse", "noisy", "jpeg"),
)
#: Two positive numbers each,
_RANGES = (
    *("whole_zoom", "tight_room", "zoom", "canvas", "height"),
    *("darkness", "blur", "resolution", "quality"),
)
#: and any two.
_SPANS = (
    *("standing_at", "cut_off"),
    *("gamma", "contrast", "saturation", "white_balance", "brightness"),
)
_AMOUNTS = (
    *("tight_least", "tight_shift", "stretch", "turn", "widest", "across", "floating"),
    *("light", "light_ground", "light_pasted", "noise"),
)
