"""u2net_human_ft as one more mode of transparent-background's ``Remover``.

``Remover.process`` asks ``transform`` for the network's input and ``model`` for an alpha matte,
and makes every kind of output from that matte. In our mode the transform is the whole pipeline,
because only the transform gets the original picture: full resolution, eight bits, EXIF data. It
returns the finished matte, the model passes the matte on, and the rest is the host's own code. The
host's own modes are not changed.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from u2net_human_plugin.device import available_device, network_for
from u2net_human_plugin.errors import DataError, HostError, OptionError
from u2net_human_plugin.hosts import transparent_background_command as command
from u2net_human_plugin.options import Options, refuse_unknown
from u2net_human_plugin.preprocess import Picture, to_rgb
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.weights import MODEL_NAME
from u2net_human_plugin.yolo import preload

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

#: The host's ways to reduce a picture for its own networks; in our mode they change nothing.
RESIZES = ("static", "dynamic")

_NO_PYMATTING = "pymatting cannot be imported: edges keep some of the background's colour."
#: EXIF orientation → what turns the stored picture upright, and what turns its mask back.
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_LEFT_RIGHT),
    3: (Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_TOP_BOTTOM),
    5: (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSPOSE),
    6: (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_90),
    7: (Image.Transpose.TRANSVERSE, Image.Transpose.TRANSVERSE),
    8: (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
}


def patch(module: ModuleType) -> None:
    """Add the mode to ``transparent_background.Remover``, and ``--model`` to its command.

    Raises:
        HostError: this transparent-background lacks a class or function that is to be replaced;
            nothing was changed.
    """
    names = ("Remover", "load_config", "parse_args", "console")
    if missing := [name for name in names if not callable(getattr(module, name, None))]:
        raise HostError(
            f"this transparent-background is too old or too new: {module.__name__} has no "
            f"{', '.join(missing)}"
        )
    remover = module.Remover
    if hasattr(remover, "_u2net_human_plugin"):
        return
    constructor = _with_our_mode(remover.__init__, module)
    process = _with_any_picture(remover.process)
    functions = {
        "load_config": _with_our_entry(module.load_config),
        "parse_args": command.with_model_option(module.parse_args),
        "console": command.with_short_errors(module.console),
    }
    # If the host was imported first, its other modules hold these functions as well.
    package = module.__name__.partition(".")[0]
    holders = [module, *map(sys.modules.get, (package, f"{package}.gui"))]
    for name, function in functions.items():
        original = getattr(module, name)
        for holder in holders:
            if getattr(holder, name, None) is original:
                setattr(holder, name, function)
    remover.__init__, remover.process = constructor, process
    remover._u2net_human_plugin = True


def _with_our_mode(host_init: Callable[..., None], module: ModuleType) -> Callable[..., None]:
    """The host's constructor, which also takes our mode; an unknown mode is an OptionError."""

    @functools.wraps(host_init)
    def init(self: Any, *args: Any, **keywords: Any) -> None:
        mode = args[0] if args else keywords.get("mode")
        if mode == MODEL_NAME:
            _set_up(self, *args, **keywords)
            return
        try:
            host_init(self, *args, **keywords)
        except KeyError as error:
            if mode is None or error.args != (mode,):
                raise
            raise OptionError(f"mode={mode!r}: expected one of {_modes(module)}.") from None

    return init


def _set_up(  # noqa: PLR0913, PLR0917 - the host's own parameters, in its order
    remover: Any,
    mode: str,
    jit: bool = False,
    device: str | int | torch.device | None = None,
    ckpt: str | os.PathLike[str] | None = None,
    resize: str = "static",
    **keywords: Any,
) -> None:
    """Set the attributes that ``process`` uses, as ``Remover.__init__`` does, for our network.

    It reads no configuration file, downloads nothing and writes nothing.

    Args:
        remover: the ``Remover``.
        mode: our mode's name.
        jit: whether torch runs the network as TorchScript.
        device: as in the host; None takes a GPU if there is one.
        ckpt: weights to use; None takes those of :mod:`u2net_human_plugin.weights`.
        resize: one of :data:`RESIZES`; it changes nothing.
        keywords: fields of :class:`~u2net_human_plugin.options.Options`.

    Raises:
        OptionError: an option is unknown or has a wrong value.
        WeightsError: the weights cannot be used.
        MissingExtraError: an option or the weights need a library that is not installed.
    """
    import torch

    if resize not in RESIZES:
        raise OptionError(f"resize={resize!r}: expected {' or '.join(RESIZES)}.")
    options = _options(keywords)
    chosen = available_device(device)
    network = network_for(ckpt, chosen, jit)
    if options.crop == "yolo":
        preload()
    matte = functools.partial(_matte, HumanSegmenter(options=options, network=network))
    remover.device = chosen
    remover.transform = matte
    remover.cv2_transform = functools.partial(_array_matte, matte)
    remover.model = torch.nn.Identity()
    remover.background = {"img": None, "name": None, "shape": None}
    remover.matting_fn = _foreground_estimator()
    settings = f"Mode={mode}, Device={chosen}, Torchscript={'enabled' if jit else 'disabled'}"
    print(f"Settings -> {settings}")  # noqa: T201 - the line that the host prints for its modes


def _options(keywords: dict[str, Any]) -> Options:
    options = Options.from_environment().updated(keywords)
    owner = f"Remover with {MODEL_NAME}"
    refuse_unknown(keywords, owner, ("jit", "device", "ckpt", "resize"))
    return options


def _matte(segmenter: HumanSegmenter, picture: Image.Image) -> torch.Tensor:
    """The alpha matte of an RGB picture, as ``transform`` returns it: (1,H,W) float32, 0…1.

    The host ignores EXIF orientation and keeps the picture as stored. People are looked for in the
    upright picture, and the matte is turned back.
    """
    import torch

    turns = _turns(picture)
    mask = segmenter.mask(picture.transpose(turns[0]) if turns else picture)
    mask = mask.transpose(turns[1]) if turns else mask
    return torch.from_numpy(np.asarray(mask, np.float32) / np.float32(255))[None]


def _array_matte(
    matte: Callable[[Image.Image], torch.Tensor], image: npt.NDArray[np.uint8]
) -> dict[str, torch.Tensor]:
    """The same for an array, (H,W,3) uint8 RGB, as ``cv2_transform`` takes and returns it."""
    return {"image": matte(Image.fromarray(image))}


def _turns(picture: Image.Image) -> tuple[Image.Transpose, Image.Transpose] | None:
    try:
        return _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - Pillow raises many kinds on damaged EXIF data
        return None


def _with_any_picture(host_process: Callable[..., Any]) -> Callable[..., Any]:
    """The host's ``process``, which in our mode takes pictures of any mode."""

    @functools.wraps(host_process)
    def process(self: Any, img: Any, *args: Any, **keywords: Any) -> Any:
        if getattr(self.transform, "func", None) is _matte:
            img = _as_rgb(img)
        return host_process(self, img, *args, **keywords)

    return process


def _as_rgb(picture: Any) -> Picture:
    """The picture in RGB, as ``process`` needs it; an array stays an array, (H,W,3) uint8.

    Raises:
        DataError: this is no picture, or its kind or size is one on which ``process`` would fail.
    """
    if isinstance(picture, np.ndarray):
        channels = picture.shape[2] if picture.ndim == 3 else 1
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in (1, 3, 4):
            raise DataError(
                f"an array {picture.shape} of {picture.dtype}: expected uint8 in the shape "
                "(height, width, 3), with colours in the order red, green, blue."
            )
        size = picture.shape[1::-1]
        if channels != 3:
            plain = picture.reshape(picture.shape[:2]) if channels == 1 else picture
            rgb: Picture = np.asarray(to_rgb(Image.fromarray(plain)))
        else:
            rgb = picture
    elif isinstance(picture, Image.Image):
        size = picture.size
        rgb = to_rgb(picture)
    else:
        raise DataError(f"a {type(picture).__name__}: expected a Pillow image or a uint8 array.")
    if min(size) < 2:
        raise DataError(
            f"a picture of {size[0]} x {size[1]} pixels: transparent-background needs two "
            "pixels or more each way."
        )
    return rgb


def _with_our_entry(host_load_config: Callable[..., Any]) -> Callable[..., Any]:
    """The host's ``load_config`` with our mode; the graphical interface lists the modes in it."""

    @functools.wraps(host_load_config)
    def load_config(*args: Any, **keywords: Any) -> Any:
        config = host_load_config(*args, **keywords)
        config.setdefault(MODEL_NAME, {})
        return config

    return load_config


def _modes(module: ModuleType) -> str:
    """The names of all modes, for an error."""
    home = os.environ.get("TRANSPARENT_BACKGROUND_FILE_PATH") or Path.home()
    return ", ".join(module.load_config(Path(home, ".transparent-background", "config.yaml")))


def _foreground_estimator() -> Callable[..., Any] | None:
    """What estimates colours under soft edges for the host's output ``rgba``.

    None, with a warning, if pymatting is not installed.
    """
    if find_spec("pymatting") is not None:
        return _estimate_foreground
    log.warning(_NO_PYMATTING)
    return None


def _estimate_foreground(image: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> Any:
    """The foreground's colours. pymatting is imported here, not earlier, because that is slow.

    In a new environment pymatting compiles itself for half a minute.
    """
    return _estimator()(image, alpha)


@functools.cache
def _estimator() -> Callable[..., Any]:
    """The estimator that the host would take: on a GPU if pymatting can use it, else on the CPU."""
    name = "estimate_foreground_ml"
    for place, function in (
        (f"pymatting.foreground.{name}_cupy", f"{name}_cupy"),
        (f"pymatting.foreground.{name}_pyopencl", f"{name}_pyopencl"),
        ("pymatting", name),
    ):
        with contextlib.suppress(ImportError):
            estimator: Callable[..., Any] = getattr(import_module(place), function)
            return estimator
    log.warning(_NO_PYMATTING)
    return lambda image, _alpha: image
