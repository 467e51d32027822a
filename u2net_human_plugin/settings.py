"""Settings that belong to weights: what the pipeline takes from the file that it runs.

Thresholds are right for the weights they were fitted to: other weights are steeper, or surer, or
see smaller figures. They are therefore stored with the weights, as timm stores a
``pretrained_cfg`` with each model: in an ONNX file as one JSON object under the key "settings" of
its ``metadata_props``, for a ``.pth`` checkpoint under that key of the JSON file of the same name
beside it. What is not stored has the default of :class:`Settings`.

``python -m finetune calibrate`` chooses thresholds and stores them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import WeightsError
from .onnx_reader import read_metadata
from .preprocess import SIZE

#: What the settings are called in an ONNX file's metadata and in a checkpoint's JSON file.
KEY = "settings"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the pipeline runs one set of weights. Immutable and hashable.

    The defaults of the thresholds are those that were fitted to the first bundled ensemble; they
    hold for any weights that say nothing else.

    Raises:
        WeightsError: a value of another type, or out of its range; the message says which.
    """

    #: Side of the square the network sees, in pixels, a multiple of 32: larger, and small figures
    #: have more pixels; smaller, and it takes less time. What an ONNX file fixes stands above it.
    size: int = SIZE
    #: Cells from this alpha on that touch are one region, and stand or fall together. Lower, and
    #: a faint haze joins ghosts to people; higher, and soft edges lose what is beyond it.
    haze: float = 0.03
    #: A region with a cell of this alpha is a person, whatever else there is; whom the first look
    #: sees that surely stays. Higher, and people in bad light are lost; lower, and things stay.
    sure: float = 0.99
    #: If nobody is that sure, who is as sure as the surest, but not below this. Lower, and empty
    #: scenes are not left empty; higher, and strong compression makes people vanish.
    floor: float = 0.95
    #: A person is small whose box, and whose crop, is below this share of the picture's sides,
    #: and so large are the parts in which small people are sought. Larger, and more is looked at
    #: closer in more time; the context that a crop cuts away comes to cost more than pixels gain.
    small: float = 0.6
    #: Room around a box, as a share of its longer side. More, and the figure has fewer pixels;
    #: less, and the network sees too little around it to know what it is.
    margin: float = 0.25
    #: No crop is smaller than this many pixels. Less, and the network sees a blur; more, and the
    #: smallest figures stay small.
    min_crop: int = 64
    #: Terms under which the weights may be used; empty, none are stated.
    licence: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = type(field.default)
            if kind is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not kind:
                raise WeightsError(f"{field.name}={value!r}: expected {_KINDS[kind]}.")
        if self.size < 32 or self.size % 32:
            raise WeightsError(f"size={self.size}: expected a multiple of 32.")
        if not 0 < self.haze < self.floor <= self.sure < 1:
            raise WeightsError(
                f"haze={self.haze}, floor={self.floor}, sure={self.sure}: expected "
                "0 < haze < floor <= sure < 1."
            )
        if not 0 < self.small <= 1:
            raise WeightsError(f"small={self.small}: expected a share above 0, up to 1.")
        if not (self.margin >= 0 and math.isfinite(self.margin)):
            raise WeightsError(f"margin={self.margin}: expected a share from 0 on.")
        if self.min_crop < 1:
            raise WeightsError(f"min_crop={self.min_crop}: expected pixels from 1 on.")

    @classmethod
    def from_mapping(cls, stored: Any, origin: str | Path) -> Settings:
        """Settings as a file has them, the defaults for what it leaves out.

        Raises:
            WeightsError: they are none; the message names ``origin``, the value and the remedy.
        """
        remedy = "Store them again: python -m finetune calibrate … --write FILE."
        if not isinstance(stored, Mapping):
            raise WeightsError(f"{origin}: its settings are no JSON object. {remedy}")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in stored:
            if name not in known:
                raise WeightsError(
                    f"{origin}: its settings have {name!r}, which this version does not know; "
                    f"expected {', '.join(known)}. Install a newer version, or: {remedy}"
                )
        try:
            return cls(**stored)
        except WeightsError as error:
            raise WeightsError(f"{origin}: settings: {error} {remedy}") from None

    @classmethod
    def from_json(cls, text: str, origin: str | Path) -> Settings:
        """The same from JSON text."""
        try:
            stored = json.loads(text)
        except ValueError:
            stored = None
        return cls.from_mapping(stored, origin)

    def to_json(self) -> str:
        """All values as a JSON object; :meth:`from_json` reads it."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    def __str__(self) -> str:
        values = dataclasses.asdict(self)
        terms = values.pop("licence")
        numbers = ", ".join(f"{name} {value:g}" for name, value in values.items())
        return f"{numbers}, licence: {terms}" if terms else numbers


_KINDS = {int: "a whole number", float: "a number", str: "text"}


def stored_settings(weights: Path, content: bytes | None = None) -> Settings | None:
    """What is stored with a weights file, ``.onnx`` or checkpoint; None if nothing is.

    Args:
        weights: the file.
        content: what is in it, if that was read already; of a checkpoint it is not needed.

    Raises:
        WeightsError: what is stored is damaged.
    """
    if weights.suffix.lower() == ".onnx":
        try:
            metadata = read_metadata(weights.read_bytes() if content is None else content)
        except (OSError, ValueError) as error:
            raise WeightsError(f"{weights}: cannot be read as an ONNX file ({error}).") from None
        return Settings.from_json(metadata[KEY], weights) if KEY in metadata else None
    twin = weights.with_suffix(".json")
    try:
        described = json.loads(twin.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{twin}: should describe {weights.name}, but is no JSON ({error}); correct or "
            "remove it."
        ) from None
    if not isinstance(described, Mapping) or KEY not in described:
        return None
    return Settings.from_mapping(described[KEY], twin)


def settings_of(stored: Settings | None, fixed_size: int | None) -> Settings:
    """What holds for weights: what is stored, else defaults; the size that the file fixes."""
    settings = stored or Settings()
    if fixed_size in (None, settings.size):
        return settings
    assert fixed_size is not None
    return dataclasses.replace(settings, size=fixed_size)
