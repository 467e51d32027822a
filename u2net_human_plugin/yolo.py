"""Person boxes from Ultralytics' YOLOv8n, for ``crop="yolo"``. Needs the extra ``yolo``.

The weights are "yolov8n.pt" next to rembg's models, which ultralytics downloads there once, or
the file named by ``U2NET_HUMAN_YOLO_WEIGHTS``. Such files are pickles, which can run code when
they are loaded: hence no option, which a remote caller might set, ever names one, and none is
taken from the working directory, in which others may have put it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import WeightsError, importing, install_command
from .forks import Lock, keep_torch_running
from .weights import model_directory_files

#: Finds people: an RGB image in, their boxes out: (N,4) float, left, top, right, bottom in
#: the image's pixels, and (N,) scores. May be called from several threads at once.
Detector: TypeAlias = Callable[
    [Image.Image], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
]

ENVIRONMENT_VARIABLE = "U2NET_HUMAN_YOLO_WEIGHTS"
#: Longer side of the picture YOLO sees; larger than its usual 640, for small figures.
SIZE = 960
#: Boxes with a lower score are not people.
CONFIDENCE = 0.25
#: Of two boxes with a larger IoU, the one with the lower score goes (non-maximum suppression).
#: More, and one person with two boxes is cut in two; less, and people close behind each other are
#: one.
OVERLAP = 0.4
_PERSON = 0

_lock = Lock()
_models: dict[tuple[int, str], Any] = {}


def find_people(
    image: Image.Image, size: int = SIZE
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The :data:`Detector` of ``crop="yolo"``; the model is loaded once per process.

    ``size`` is the longer side of the picture that YOLO sees.

    Raises:
        MissingExtraError: ultralytics is not installed.
        BrokenExtraError: ultralytics is installed but cannot be imported.
        WeightsError: the weights can be neither found, downloaded nor read.
    """
    shrink = min(1.0, size / max(image.size))
    small_wh = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
    small = image.resize(small_wh, Image.Resampling.BILINEAR, reducing_gap=2.0)
    # An array and not the image, because ultralytics would turn that by its EXIF data.
    bgr = np.ascontiguousarray(np.asarray(small)[..., ::-1])
    quietly = {"verbose": False, "save": False}
    with _lock:
        keep_torch_running()
        results = _model().predict(
            bgr, imgsz=size, classes=[_PERSON], conf=CONFIDENCE, iou=OVERLAP, **quietly
        )
        found = results[0].boxes.cpu().numpy()
    boxes, scores = found.xyxy, found.conf
    scale = np.array([image.width / small.width, image.height / small.height] * 2)
    return (boxes * scale).astype(np.float32), scores.astype(np.float32)


def preload() -> None:
    """Load the model of :func:`find_people` now; its errors come now, not with a picture."""
    with _lock:
        keep_torch_running()
        _model()


def _model() -> Any:
    # A forked child must not use a model whose threads stayed in the parent.
    key = (os.getpid(), os.environ.get(ENVIRONMENT_VARIABLE, ""))
    if key not in _models:
        remedy = f"give a local file of YOLOv8 weights, as yolov8n.pt, in {ENVIRONMENT_VARIABLE}"
        _models[key] = load_yolo(str(weights_file()), remedy)
    return _models[key]


def weights_file() -> Path:
    """The file of YOLO's weights; without the environment variable it may have to be downloaded.

    Raises:
        WeightsError: the environment variable names no file.
    """
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        file = Path(named).expanduser()
        if not file.is_file():
            raise WeightsError(f"{named}: no such file; correct or unset {ENVIRONMENT_VARIABLE}.")
        return file
    # Next to the folder that rembg has for our own model. Ultralytics makes the folder, and
    # looks nowhere else, since the path is absolute.
    models = model_directory_files()[0].parents[1]
    return models.absolute() / "yolov8n" / "yolov8n.pt"


def load_yolo(weights: str, remedy: str) -> Any:
    """Ultralytics' model from a file, or by one of its own names, which it downloads.

    Raises:
        MissingExtraError: ultralytics is not installed.
        BrokenExtraError: ultralytics is installed but cannot be imported.
        WeightsError: it cannot be loaded; the message ends with ``remedy``.
    """
    yolo = import_yolo()
    try:
        model = yolo(str(Path(weights).expanduser()))
        if isinstance(model.model, str):  # no .pt: read with its first picture
            model.predict(np.zeros((32, 32, 3), np.uint8), verbose=False, save=False)
        return model
    except Exception as error:  # noqa: BLE001 - download, file and pickle errors vary
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{weights}: ultralytics cannot load it ({reason}); {remedy}.") from None


def import_yolo() -> Any:
    """Ultralytics' class ``YOLO``, imported without its messages and statistics.

    Raises:
        MissingExtraError: ultralytics is not installed.
        BrokenExtraError: ultralytics is installed but cannot be imported.
    """
    quiet = _quiet_environment() if "ultralytics" not in sys.modules else {}
    remedy = f'crop="yolo" needs it: `{install_command("yolo")}` (AGPL-3.0), or use crop="self".'
    with _environment(quiet), _pillow_left_alone(), importing("ultralytics", remedy):
        return import_module("ultralytics").YOLO


@contextmanager
def _pillow_left_alone() -> Iterator[None]:
    """Keep ``PIL.Image.open`` as it is, which ultralytics replaces while it is imported.

    Its own wants pi-heif as soon as Pillow cannot identify a file, and the host would get a
    ModuleNotFoundError in place of the UnidentifiedImageError that it expects.
    """
    opener = Image.open
    try:
        yield
    finally:
        Image.open = opener


def _quiet_environment() -> dict[str, str]:
    """Variables that ultralytics reads while it is imported; the user's own values win.

    Offline: no connection test and no usage statistics, for the life of the process;
    weights can still be downloaded. Without a folder of the user's choice its settings,
    in which statistics are switched on, are written to a temporary one, not to the home.
    """
    quiet = {
        "YOLO_OFFLINE": "true",
        "YOLO_VERBOSE": "false",
        "YOLO_AUTOINSTALL": "false",
        "ULTRALYTICS_SAFE_LOAD": "true",
    }
    if "YOLO_CONFIG_DIR" not in os.environ:
        quiet["YOLO_CONFIG_DIR"] = _settings_folder().name
    return {name: value for name, value in quiet.items() if name not in os.environ}


@cache  # one for the process, and until it ends: ultralytics keeps writing there
def _settings_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="u2net-human-ultralytics-")


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
