"""What an actor does: one loaded network, and one picture after the other.

Nothing here imports Ray: a :class:`CutOut` is a callable like any other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net_human_plugin.boxes import area_xyxy
from u2net_human_plugin.choose import people_in_mask
from u2net_human_plugin.cutout import SUFFIX, Form, encoded, opened
from u2net_human_plugin.errors import DataError, OptionError
from u2net_human_plugin.network import OnnxNetwork, load_onnx, single_threaded
from u2net_human_plugin.options import Options
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.weights import WeightsFile, bundled, find_weights

#: Longer side of the grid on which people are counted.
COUNTED_ON = 256


@dataclass(frozen=True)
class Recipe:
    """What is made of each picture. Immutable; sent to every actor.

    Raises:
        OptionError: a form that does not exist.
    """

    #: "png" or "webp", the picture with the mask as its alpha channel; "mask", the mask
    #: alone as a grey PNG.
    form: Form = "png"
    options: Options = field(default_factory=Options)
    #: The weights file, with the SHA-256 that its content must have on every machine; None
    #: is found by :func:`u2net_human_plugin.weights.find_weights` on the actor's own.
    weights: WeightsFile | None = None

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise OptionError(f"form={self.form!r:.60}: expected {_listed(get_args(Form))}.")

    @classmethod
    def from_environment(cls, form: Form = "png", **choices: Any) -> Recipe:
        """With the options and the weights that this process's environment asks for.

        Raises:
            OptionError: a wrong value.
            WeightsError: the weights file cannot be read.
        """
        options = Options.from_environment().updated(choices)
        weights = find_weights()
        checksum = hashlib.sha256(weights.read()).hexdigest()
        return cls(form, options, dataclasses.replace(weights, sha256=checksum))

    @property
    def suffix(self) -> str:
        """What the names of the files made end with."""
        return SUFFIX[self.form]

    @property
    def settings(self) -> str:
        """Everything but the weights that the result depends on, as JSON."""
        return json.dumps({"form": self.form, **dataclasses.asdict(self.options)}, sort_keys=True)

    def load(self, on_gpu: bool = False) -> HumanSegmenter:
        """The segmenter. On the CPU it has one thread: an actor is one core's work.

        Raises:
            WeightsError: this machine's weights are not those of the recipe.
        """
        weights = self.weights or find_weights()
        if weights.origin == "bundled":  # the package may lie elsewhere on this machine
            weights = dataclasses.replace(bundled(), sha256=weights.sha256)
        return HumanSegmenter(network=_network(weights, on_gpu), options=self.options)


class CutOut:
    """Makes cut-outs of a batch of Ray Data in its format "numpy".

    Adds the columns

    - ``cutout``: the file's content, bytes; None if there is an error,
    - ``width`` and ``height`` of the picture in pixels, upright; None if there is an error,
    - ``share`` of the picture that is people, 0…1; None if there is an error,
    - ``people``: how many figures; those who touch are one; None if there is an error,
    - ``seconds`` that this took, float,
    - ``error``: why there is no cut-out; None if there is one.

    Raises:
        WeightsError: this machine's weights are not those of the recipe.
    """

    def __init__(self, recipe: Recipe, on_gpu: bool = False) -> None:
        self.recipe = recipe
        self.segmenter = recipe.load(on_gpu)

    def __call__(self, batch: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
        column = "bytes" if "bytes" in batch else "image"
        if column not in batch:
            raise DataError(
                f'the dataset has the columns {", ".join(batch)}; expected "bytes" '
                '(ray.data.read_binary_files) or "image" (ray.data.read_images).'
            )
        rows = [self.attempt(picture) for picture in batch[column]]
        return {**batch, **{name: _objects(row[name] for row in rows) for name in rows[0]}}

    def attempt(self, picture: bytes | npt.NDArray[np.uint8]) -> dict[str, Any]:
        """:meth:`cut`, with the time it took; what went wrong becomes the row's ``error``."""
        started = time.perf_counter()
        row: dict[str, Any] = dict.fromkeys(("cutout", "width", "height", "share", "people"))
        error = None
        try:
            row.update(self.cut(picture))
        except Exception as reason:  # noqa: BLE001 - a batch goes on, whatever a file holds
            error = said(reason)
        return {**row, "seconds": time.perf_counter() - started, "error": error}

    def cut(self, picture: bytes | npt.NDArray[np.uint8]) -> dict[str, Any]:
        """The columns of one picture: ``cutout``, ``width``, ``height``, ``share``, ``people``.

        Raises:
            DataError: no picture.
            OSError: a damaged one.
        """
        image = opened(picture)
        mask = self.segmenter.mask(image)
        return {
            "cutout": encoded(image, mask, self.recipe.form),
            "width": image.width,
            "height": image.height,
            "share": float(np.asarray(mask).mean()) / 255,
            "people": count_people(mask),
        }


def count_people(mask: Image.Image) -> int:
    """People in a mask, as the option ``persons`` tells them apart; a speck is nobody.

    A speck's box has less than a hundredth of the largest one's area.
    """
    areas = area_xyxy(people_in_mask(mask))
    return int((areas >= areas.max(initial=0) / 100).sum())


def said(error: BaseException) -> str:
    """An error in one line of at most 500 characters."""
    words = " ".join(str(error).split())
    return (words if isinstance(error, DataError) else f"{type(error).__name__}: {words}")[:500]


def _network(weights: WeightsFile, on_gpu: bool) -> OnnxNetwork:
    if on_gpu:
        return load_onnx(weights)
    return load_onnx(weights, ["CPUExecutionProvider"], single_threaded())


def _objects(values: Any) -> npt.NDArray[np.object_]:
    values = list(values)
    column = np.empty(len(values), object)  # np.array would make a matrix of equal lengths
    column[:] = values
    return column


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
