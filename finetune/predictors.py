"""Any model as a callable picture → mask, named by one line of text.

=================================  =======================================================
``bundled``                        the weights in this package
``PATH.onnx``                      any U²-Net as ONNX (or a network with its contract)
``PATH.pth``                       any U²-Net as torch checkpoint; lite ends at the half decoder
``full:PATH.pth``                  the same with its full-resolution decoder stage
``minmax:PATH.onnx``               the file as rembg runs its own U²-Net models, without rembg:
                                   its preprocessing, each mask stretched by its own min and max
``rembg:NAME``                     any session of an installed rembg
=================================  =======================================================

The first four run in our pipeline and take its options: ``bundled?crop=self&persons=all``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net_human_plugin.errors import (
    MissingExtraError,
    OptionError,
    WeightsError,
    install_command,
)
from u2net_human_plugin.network import Network, OnnxNetwork, TorchNetwork
from u2net_human_plugin.options import Options
from u2net_human_plugin.preprocess import MEAN, REMBG_SIZE, STD
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.weights import WeightsFile, bundled

from .files import file_sha256

#: RGB picture, W x H → mask, (H,W) uint8, 255 = person. Safe to call from several threads.
Segment = Callable[[Image.Image], npt.NDArray[np.uint8]]

_EXPECTED = "bundled, PATH.onnx, PATH.pth, full:PATH.pth, minmax:PATH.onnx or rembg:NAME"


@dataclass(frozen=True)
class Predictor:
    """A model that has been loaded."""

    #: The text that named it.
    spec: str
    segment: Segment
    #: Facts for a report: kind, file and sha256, options.
    facts: dict[str, Any]


def load_predictor(spec: str, options: Options | None = None) -> Predictor:
    """Load the model that ``spec`` names (see the module's table).

    Args:
        spec: the model, with options of its own after a question mark.
        options: the values of options that ``spec`` does not name; None: the defaults. The
            environment is not asked, so that a report means the same everywhere.

    Raises:
        WeightsError: no such model, or a file that is none.
        OptionError: an option that does not exist, or one given to a foreign model.
        MissingExtraError: a library that this model needs is not installed.
    """
    name, _, query = spec.partition("?")
    kind, colon, rest = name.partition(":")
    if not colon or kind not in ("full", "minmax", "rembg"):
        kind, rest = "", name
    if kind in ("minmax", "rembg"):
        if query:
            raise OptionError(f"{spec}: options after ? are for our own pipeline, not for {kind}:.")
        return _minmax(spec, Path(rest)) if kind == "minmax" else _rembg(spec, rest)
    options = _own_options(spec, query, options or Options())
    network, facts = _network(kind, rest, spec)
    segmenter = HumanSegmenter(network=network, options=options)
    return Predictor(
        spec,
        lambda image: np.asarray(segmenter.mask(image)),
        {**facts, "options": dataclasses.asdict(options)},
    )


def _own_options(spec: str, query: str, options: Options) -> Options:
    given = dict(parse_qsl(query, keep_blank_values=True))
    names = [field.name for field in dataclasses.fields(Options)]
    for name in given:
        if name not in names:
            raise OptionError(f"{spec}: no option {name!r}; expected one of {', '.join(names)}.")
    return options.updated(given)


def _network(kind: str, name: str, spec: str) -> tuple[Network, dict[str, Any]]:
    if kind == "" and name == "bundled":
        weights = bundled()
        return OnnxNetwork(weights), _facts("bundled", weights.path)
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if suffix == ".onnx" and kind == "":
        return OnnxNetwork(WeightsFile(path, "given")), _facts("onnx", path)
    if suffix in (".pth", ".pt"):
        network = TorchNetwork(WeightsFile(path, "given"))
        if kind == "full":
            network.model.decoder = "full"
        decoder = getattr(network.model, "decoder", "half")
        return network, {**_facts("torch", path), "decoder": decoder}
    raise WeightsError(f"{spec}: names no model; expected {_EXPECTED}.")


def open_network(name: str) -> tuple[Network, dict[str, Any]]:
    """The network that ``bundled``, ``PATH.onnx`` or ``PATH.pth`` names, and its facts.

    Raises:
        WeightsError: no such model, or a file that is none.
    """
    return _network("", name, name)


def _facts(kind: str, path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"kind": kind, "file": path.name, "sha256": file_sha256(path), "bytes": size}


def _minmax(spec: str, path: Path) -> Predictor:
    network = OnnxNetwork(WeightsFile(path, "given"))
    side = network.size or REMBG_SIZE

    def segment(image: Image.Image) -> npt.NDArray[np.uint8]:
        small = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
        scaled = small / max(float(small.max()), 1e-6)
        batch = ((scaled - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
        alpha = network(batch)[0]
        spread = float(alpha.max() - alpha.min())
        # A flat answer cannot be stretched; rembg divides by zero here.
        alpha = (alpha - alpha.min()) / spread if spread > 0 else np.zeros_like(alpha)
        mask = Image.fromarray((alpha * 255).astype(np.uint8))
        return np.asarray(mask.resize(image.size, Image.Resampling.LANCZOS))

    return Predictor(spec, segment, _facts("rembg's own pipeline, min-max stretched", path))


def _rembg(spec: str, name: str) -> Predictor:
    try:
        import rembg
    except ImportError:
        raise MissingExtraError(
            f"{spec}: rembg is not installed: {install_command('rembg')}"
        ) from None
    try:
        session = rembg.new_session(name)
    except ValueError as error:
        raise WeightsError(f"{spec}: {error}") from None

    def segment(image: Image.Image) -> npt.NDArray[np.uint8]:
        return np.asarray(session.predict(image)[0].convert("L"))

    return Predictor(spec, segment, {"kind": "rembg session", "name": name})
