"""Masks for photos that have none, from a model that the user names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from u2net_human_plugin.errors import (
    MissingExtraError,
    OptionError,
    WeightsError,
    install_command,
)

from ..files import file_sha256


@dataclass(frozen=True)
class Labeler:
    """Makes a mask: an RGB image in, "L" 0…255 of its size out; one caller at a time."""

    #: Its name under "labelled_by" in the rows it made.
    name: str
    segment: Callable[[Image.Image], Image.Image]
    #: Whether it runs on this machine; if not, pictures are sent elsewhere.
    is_local: bool = True
    #: SHA-256 of the file it was loaded from; "" if there is no such file, or more than one.
    weights_sha256: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def id(self) -> str:
        """Its name and, if it has one, the hash of its weights: two files may be called best.pt."""
        return f"{self.name} {self.weights_sha256}".rstrip()

    def __call__(self, image: Image.Image) -> Image.Image:
        with self._lock:
            mask = self.segment(image)
        if mask.size != image.size:
            mask = mask.resize(image.size, Image.Resampling.BILINEAR)
        return mask.convert("L")


def load_labeler(name: str) -> Labeler:
    """The labeler called ``name``: a rembg session, or a YOLO segmentation model (…-seg.pt).

    rembg downloads a session's weights when they are missing, ultralytics those of its own
    models. A .pt file is a pickle, which can run code: name only files you trust.

    Raises:
        OptionError: there is no such session or file.
        MissingExtraError: rembg or ultralytics is not installed.
        WeightsError: the model cannot be loaded.
    """
    if Path(name).suffix == ".pt":
        return _yolo(name)
    return _rembg(name)


def _rembg(name: str) -> Labeler:
    try:
        from rembg import new_session
        from rembg.sessions import sessions_names
    except (ImportError, SystemExit):  # rembg exits where its own dependencies are missing
        raise MissingExtraError(
            f"--label-with {name} needs rembg: {install_command('rembg')}"
        ) from None
    if name not in sessions_names:
        raise OptionError(
            f"--label-with {name}: neither a rembg session ({', '.join(sorted(sessions_names))}) "
            "nor a YOLO segmentation model (….pt)."
        )
    try:
        session: Any = new_session(name)
        weights = session.download_models()  # returns where they are
    except Exception as error:  # noqa: BLE001 - downloads, credentials and files fail in many ways
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"--label-with {name}: rembg cannot open this session ({reason}); check the "
            "connection, or put the weights where `rembg d` would."
        ) from None
    local = bool(getattr(session, "is_local", lambda: True)())

    def segment(image: Image.Image) -> Image.Image:
        masks = session.predict(image)
        # Some sessions split people by clothes or parts: together they are the person.
        union = np.max([np.asarray(mask.convert("L").resize(image.size)) for mask in masks], axis=0)
        return Image.fromarray(union)

    return Labeler(name, segment, local, _sha256(weights))


def _sha256(weights: object) -> str:
    """SHA-256 of the file of this name; "" if it is no file, as for services and SAM."""
    if isinstance(weights, str) and Path(weights).is_file():
        return file_sha256(Path(weights))
    return ""


def _yolo(weights: str) -> Labeler:
    from u2net_human_plugin.yolo import load_yolo

    model = load_yolo(weights, "give a YOLO segmentation model to --label-with")
    if model.task != "segment":
        raise OptionError(
            f"--label-with {weights}: is a model for {model.task!r}; give one for segmentation, "
            "such as yolov8n-seg.pt."
        )

    def segment(image: Image.Image) -> Image.Image:
        bgr = np.ascontiguousarray(np.asarray(image)[..., ::-1])
        found = model.predict(bgr, classes=[0], retina_masks=True, verbose=False, save=False)[0]
        if found.masks is None:
            return Image.new("L", image.size)
        union = found.masks.data.cpu().numpy().max(axis=0) > 0.5
        return Image.fromarray((union * 255).astype(np.uint8))

    # Where ultralytics found or downloaded the file.
    return Labeler(Path(weights).name, segment, weights_sha256=_sha256(model.ckpt_path))
