"""Teachers: networks whose averaged answer is a soft mask of any photo.

A teacher is named by one line of text:

=================================  =======================================================
``bundled``                        the weights in this package
``PATH.onnx``, ``PATH.pth``        a U²-Net, or an ONNX network with its contract
``rembg:NAME``                     any session of an installed rembg
=================================  =======================================================

with settings of its own after a question mark, ``PATH.onnx?size=384&flip=on&weight=2``:
``size`` of the square input in pixels, ``flip=on`` for the mean with the mirrored picture's
answer, ``weight`` in the average, ``people=on`` if it was made for people and therefore knows
who is somebody, ``mean`` and ``scale`` if the network wants ``(x - mean) / scale`` of pixels in
0…255 instead of U²-Net's preprocessing (ISNet at 1024 pixels: ``mean=128&scale=256``).

The average logits of networks that err differently are right more often than those of each of
them; where they differ, they are no truth to learn from (Lakshminarayanan, Pritzel and Blundell,
"Simple and scalable predictive uncertainty estimation using deep ensembles", NeurIPS 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net_human_plugin.errors import OptionError, WeightsError
from u2net_human_plugin.network import OnnxNetwork, TorchNetwork
from u2net_human_plugin.preprocess import SIZE, normalize, reduced
from u2net_human_plugin.regions import label_regions, region_peaks
from u2net_human_plugin.weights import WeightsFile, bundled

from ..files import file_sha256
from .pseudo_labels import load_labeler

Floats = npt.NDArray[np.float32]

#: Logits are clipped here, so that one overconfident network does not decide alone.
LOUDEST = 8.0
#: A region of the average counts as somebody from this alpha on.
REGION = 0.1

_SETTINGS = ("size", "flip", "weight", "people", "mean", "scale")


@dataclass(frozen=True)
class Teacher:
    """One network of the average.

    ``logits`` takes an upright RGB picture and answers (h,w) float32 of any size.
    """

    #: The text that named it.
    spec: str
    logits: Callable[[Image.Image], Floats]
    weight: float = 1.0
    #: Whether it was made for people, rather than for whatever stands out.
    knows_people: bool = False
    #: SHA-256 of its weights; "" if they are not one file.
    sha256: str = ""


class SoftLabel(NamedTuple):
    """The teachers' average for a picture, on a square grid."""

    #: (S,S) uint8: the soft mask, 255 = person.
    matte: npt.NDArray[np.uint8]
    #: (S,S) uint8: how much they agree; 0 does not count.
    agreement: npt.NDArray[np.uint8]


def load_teacher(spec: str) -> Teacher:
    """Load the teacher that ``spec`` names (see the module's table).

    Raises:
        OptionError: a setting that does not exist, or a value it cannot have.
        WeightsError: no such network, or a file that is none.
        MissingExtraError: a library that it needs is not installed.
    """
    name, _, query = spec.partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    for key in settings:
        if key not in _SETTINGS:
            raise OptionError(f"{spec}: no setting {key!r}; expected {', '.join(_SETTINGS)}.")
    weight = _number(spec, settings, "weight", 1.0)
    people = _switch(spec, settings, "people")
    if name.startswith("rembg:"):
        labeler = load_labeler(name.removeprefix("rembg:"))

        def ask(picture: Image.Image) -> Floats:
            return _logit(np.asarray(labeler(picture), np.float32) / np.float32(255))

        sha256 = labeler.weights_sha256
    else:
        network, path = _network(spec, name)
        prepared = _preprocessing(spec, settings, network)

        def ask(picture: Image.Image) -> Floats:
            return _logit(network(prepared(picture)[None])[0])

        sha256 = file_sha256(path)
    if _switch(spec, settings, "flip"):
        return Teacher(spec, _mirrored_too(ask), weight, people, sha256)
    return Teacher(spec, ask, weight, people, sha256)


def soft_label(
    picture: Image.Image,
    teachers: Sequence[Teacher],
    size: int,
    *,
    somebody: npt.NDArray[np.bool_] | None = None,
) -> SoftLabel:
    """The teachers' average on a grid of ``size`` x ``size``.

    Args:
        picture: upright RGB.
        teachers: at least one.
        size: of the grid, in pixels.
        somebody: (h,w) of any size: where a mask or a detector says that there are people.
            Regions of the average in which neither this nor a teacher that knows people
            sees anybody are things, hence 0; where those teachers are unsure, they do not
            count. None, or no such teacher: no region is left out.
    """
    logits = np.stack([_on_grid(teacher.logits(picture), size) for teacher in teachers])
    weights = np.array([teacher.weight for teacher in teachers], np.float32)
    weights /= weights.sum()
    matte = _sigmoid(np.tensordot(weights, logits, 1))
    alphas = _sigmoid(logits)
    spread = np.sqrt(np.tensordot(weights, (alphas - np.tensordot(weights, alphas, 1)) ** 2, 1))
    # Two teachers of which one says 0 and one says 1 have a spread of one half.
    agreement = 1 - 2 * spread
    knowing = alphas[[teacher.knows_people for teacher in teachers]]
    if somebody is not None or len(knowing):
        seen = knowing.max(0) if len(knowing) else np.zeros_like(matte)
        if somebody is not None:
            seen = np.maximum(seen, _on_grid(somebody.astype(np.float32), size))
        regions = label_regions(matte >= REGION)
        things = np.append(False, region_peaks(seen, regions) < 0.5)[regions]
        matte = np.where(things, 0, matte)
        agreement = np.where(things, 1 - 2 * seen, agreement)
    return SoftLabel(_bytes(matte), _bytes(agreement))


def _mirrored_too(ask: Callable[[Image.Image], Floats]) -> Callable[[Image.Image], Floats]:
    def both(picture: Image.Image) -> Floats:
        mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mean: Floats = (ask(picture) + ask(mirrored)[:, ::-1]) / np.float32(2)
        return mean

    return both


def _network(spec: str, name: str) -> tuple[OnnxNetwork | TorchNetwork, Path]:
    if name == "bundled":
        weights = bundled()
        return OnnxNetwork(weights), weights.path
    path = Path(name).expanduser()
    if path.suffix.lower() == ".onnx":
        return OnnxNetwork(WeightsFile(path, "given")), path
    if path.suffix.lower() == ".pth":
        return TorchNetwork(WeightsFile(path, "given")), path
    raise WeightsError(
        f"{spec}: names no teacher; expected bundled, PATH.onnx, PATH.pth or rembg:NAME."
    )


def _preprocessing(
    spec: str, settings: Mapping[str, str], network: OnnxNetwork | TorchNetwork
) -> Callable[[Image.Image], Floats]:
    size = network.size or int(_number(spec, settings, "size", SIZE))
    if "mean" not in settings and "scale" not in settings:
        return lambda picture: normalize(reduced(picture, size))
    mean, scale = _number(spec, settings, "mean", 0.0), _number(spec, settings, "scale", 255.0)

    def plain(picture: Image.Image) -> Floats:
        pixels = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR), np.float32)
        return np.ascontiguousarray(((pixels - mean) / scale).transpose(2, 0, 1), np.float32)

    return plain


def _number(spec: str, settings: Mapping[str, str], key: str, default: float) -> float:
    text = settings.get(key)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (key in ("size", "weight", "scale") and value <= 0):
        raise OptionError(f"{spec}: {key}={text!r}: expected a number, e.g. {key}={default:g}.")
    return value


def _switch(spec: str, settings: Mapping[str, str], key: str) -> bool:
    value = settings.get(key, "off")
    if value not in ("on", "off"):
        raise OptionError(f'{spec}: {key}={value!r}: expected "on" or "off".')
    return value == "on"


def _logit(alpha: Floats) -> Floats:
    least = 1 / (1 + math.exp(LOUDEST))
    alpha = alpha.clip(least, 1 - least)
    logit: Floats = np.log(alpha / (1 - alpha))
    return logit


def _sigmoid(logits: Floats) -> Floats:
    alpha: Floats = np.float32(1) / (np.float32(1) + np.exp(-logits))
    return alpha


def _on_grid(values: Floats, size: int) -> Floats:
    # Pillow's filters widen as a map gets smaller: it is averaged, not sampled.
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _bytes(values: Floats) -> npt.NDArray[np.uint8]:
    return (values.clip(0, 1) * 255).round().astype(np.uint8)
