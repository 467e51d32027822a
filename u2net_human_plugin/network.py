"""Weights as a callable: (N,3,H,W) float32 in, (N,h,w) float32 alpha in 0…1 out.

onnxruntime and torch are imported only when a network is loaded. Networks are shared:
every session in a process that asks for the same file, device and threads gets the same
object, because hosts such as rembg's server create a session per distinct request options.

A network is of use in other processes, too: forked ones, and those it is pickled for, load
the file again.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import WeightsError, importing
from .forks import Lock, in_children, keep_torch_running
from .settings import KEY, Settings, settings_of, stored_settings
from .weights import WeightsFile

if TYPE_CHECKING:
    import onnxruntime
    import torch

Array = npt.NDArray[np.float32]
T = TypeVar("T")
RuntimeOptions = tuple[tuple[str, Any], ...]

log = logging.getLogger(__name__)


class Network(Protocol):
    """What the segmenter needs of a network; safe to call from several threads."""

    @property
    def settings(self) -> Settings:
        """The side of its square input, and the thresholds that its answers need."""
        ...

    def __call__(self, batch: Array) -> Array:
        """(N,3,H,W) float32, normalised → (N,h,w) float32 in 0…1."""
        ...


class OnnxNetwork:
    """A network run by onnxruntime.

    Args:
        weights: an ONNX file with one (N,3,H,W) float32 input whose first output is
            (N,1,h,w) in 0…1.
        providers: onnxruntime execution providers, most wanted first; None chooses the
            fastest that this onnxruntime build offers.
        session_options: onnxruntime's own settings, for example thread counts.

    Raises:
        WeightsError: the file is not such a network.
    """

    def __init__(
        self,
        weights: WeightsFile,
        providers: Sequence[Any] | None = None,
        session_options: onnxruntime.SessionOptions | None = None,
    ) -> None:
        self._arguments = weights, providers, session_options
        self._load()
        _onnx_networks.add(self)

    def _load(self) -> None:
        weights, providers, session_options = self._arguments
        ort = _import_onnxruntime()
        content = weights.read()
        try:
            session = ort.InferenceSession(
                content,
                sess_options=session_options,
                providers=list(providers) if providers else default_providers(),
            )
        except Exception as error:  # noqa: BLE001 - its types differ between versions
            reason = " ".join(str(error).split())[:300]
            raise WeightsError(
                f"{weights.path}: onnxruntime cannot load it ({reason}); expected an ONNX file "
                "with one (N,3,H,W) input, for example from "
                "`python -m u2net_human_plugin.finetune export`."
            ) from None
        self._size, self._batches = _check_contract(session, weights.path)
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        stored = None if text is None else Settings.from_json(text, weights.path)
        self._settings = settings_of(stored, self._size)
        self._session, self._turns = session, threading.Semaphore(_AT_ONCE)
        self._process = os.getpid()

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """The session of onnxruntime; in a forked child its own one, whose threads exist."""
        self._load_after_fork()
        return self._session

    @property
    def size(self) -> int | None:
        """Side of the square input in pixels, or None if any size will do."""
        self._load_after_fork()
        return self._size

    @property
    def settings(self) -> Settings:
        """What the file says of how to run it; see :mod:`u2net_human_plugin.settings`."""
        self._load_after_fork()
        return self._settings

    def _load_after_fork(self) -> None:
        if self._process != os.getpid():
            with _lock:
                if self._process != os.getpid():
                    self._load()

    def __reduce__(self) -> tuple[Callable[..., OnnxNetwork], tuple[Any, ...]]:
        weights, providers, options = self._arguments
        return _load_pickled, (weights, providers, None if options is None else _listed(options))

    def __call__(self, batch: Array) -> Array:
        session = self.session
        names, feed = [session.get_outputs()[0].name], session.get_inputs()[0].name
        # The official files have a fixed batch of one.
        parts = [batch] if self._batches else [image[None] for image in batch]
        with self._turns:
            alphas = [session.run(names, {feed: part})[0] for part in parts]
        alpha: Array = np.concatenate(alphas)[:, 0] if len(alphas) > 1 else alphas[0][:, 0]
        return alpha


#: Runs of one network at a time. Each spreads over all cores, so that a few keep them busy,
#: and each more costs 120 MB that onnxruntime never gives back.
_AT_ONCE = max(2, (os.cpu_count() or 1) // 2)

_onnx_networks: weakref.WeakSet[OnnxNetwork] = weakref.WeakSet()
_inherited: list[Any] = []


def _keep_sessions() -> None:
    """Keep a forked child from ending a session: that would wait for the parent's threads."""
    _inherited.extend(vars(network).get("_session") for network in _onnx_networks)


in_children(_keep_sessions)


class TorchNetwork:
    """A network run by torch, batch normalisation folded.

    Args:
        weights: a U²-Net checkpoint, ``.pth`` or ``.onnx``.
        device: "cpu", "cuda:0", "mps" …
        traced: run it as TorchScript, traced here and kept in memory. Where torch cannot
            trace it, it runs as it is, and the log says so.

    Raises:
        WeightsError: the file is no U²-Net.
    """

    def __init__(
        self, weights: WeightsFile, device: str | torch.device = "cpu", traced: bool = False
    ) -> None:
        import torch

        from .checkpoint import load_network
        from .u2net import U2Net, fold_batch_norm

        keep_torch_running()
        self._arguments = weights, device, traced
        content = weights.read()  # checks existence and checksum
        model = load_network(weights.path)
        self.size = model.size
        #: What is stored with the file; see :mod:`u2net_human_plugin.settings`.
        self.settings = settings_of(stored_settings(weights.path, content), model.size)
        is_checkpoint = isinstance(model, U2Net) and weights.path.suffix.lower() != ".onnx"
        if is_checkpoint and model.variant != "full":
            # See DECODER in finetune: nothing is lost at photo size. An ONNX file has chosen
            # its output already, and gives the same mask here as in onnxruntime.
            model.decoder = "half"
        self.device = torch.device(device)
        # On the CPU, convolutions take 2/3 of the time with the channels innermost.
        on_cpu = self.device.type == "cpu"
        self._layout = torch.channels_last if on_cpu else torch.contiguous_format
        self.model = fold_batch_norm(model).to(device=self.device)
        self.model.to(memory_format=self._layout).eval().requires_grad_(False)
        self._run: Callable[[torch.Tensor], torch.Tensor] = self._alpha
        if traced:
            # Any multiple of 32 gives a trace that holds for all of them; small is fast.
            side = self.size or 64
            example = torch.zeros(1, 3, side, side, device=self.device)
            try:
                with warnings.catch_warnings():  # deprecated; and sizes become constants, as meant
                    warnings.simplefilter("ignore")
                    trace: Any = torch.jit.trace
                    self._run = trace(self._alpha, example, check_trace=False)
            except Exception as error:  # noqa: BLE001 - torch.jit is on its way out of torch
                log.warning("torch cannot trace the network (%s); running it untraced.", error)

    def __call__(self, batch: Array) -> Array:
        import torch

        keep_torch_running()
        with torch.inference_mode():
            images = torch.from_numpy(batch).to(self.device).contiguous(memory_format=self._layout)
            alpha: Array = self._run(images).float().cpu().numpy()
        return alpha

    def __reduce__(self) -> tuple[Callable[..., TorchNetwork], tuple[Any, ...]]:
        return load_torch, self._arguments

    def _alpha(self, batch: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.model(batch)[0].sigmoid()[:, 0]
        return answer


def load_onnx(
    weights: WeightsFile,
    providers: Sequence[Any] | None = None,
    session_options: onnxruntime.SessionOptions | None = None,
) -> OnnxNetwork:
    """The shared :class:`OnnxNetwork` for these arguments."""
    key = ("onnx", repr(providers), _listed(session_options))
    return _shared(weights, key, lambda: OnnxNetwork(weights, providers, session_options))


def load_torch(weights: WeightsFile, device: str = "cpu", traced: bool = False) -> TorchNetwork:
    """The shared :class:`TorchNetwork` for these arguments."""
    key = ("torch", device, traced)
    return _shared(weights, key, lambda: TorchNetwork(weights, device, traced))


def _load_pickled(
    weights: WeightsFile, providers: Sequence[Any] | None, chosen: RuntimeOptions | None
) -> OnnxNetwork:
    options = None
    if chosen is not None:
        options = _import_onnxruntime().SessionOptions()
        for name, value in chosen:
            setattr(options, name, value)
    return load_onnx(weights, providers, options)


def single_threaded() -> onnxruntime.SessionOptions:
    """Settings for one of many processes that share the cores."""
    options: onnxruntime.SessionOptions = _import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def default_providers() -> list[str]:
    """The accelerators this onnxruntime build offers, best first, then the CPU."""
    available = _import_onnxruntime().get_available_providers()
    wanted = ("CUDAExecutionProvider", "ROCMExecutionProvider", "OpenVINOExecutionProvider")
    return [*[name for name in wanted if name in available][:1], "CPUExecutionProvider"]


_networks: dict[tuple[Any, ...], Any] = {}
_lock = Lock()


def _shared(weights: WeightsFile, key: tuple[Any, ...], load: Callable[[], T]) -> T:
    path, identity = str(weights.path.absolute()), _identity(weights.path)
    key = (path, identity, *key)
    with _lock:
        if key not in _networks:
            network = load()
            # Weights that were replaced while running: only who uses the old ones keeps them.
            for old in [old for old in _networks if old[0] == path and old[1] != identity]:
                del _networks[old]
            _networks[key] = network
        shared: T = _networks[key]
        return shared


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _listed(options: onnxruntime.SessionOptions | None) -> RuntimeOptions:
    """All options that can be read back, so that equal ones can share a network.

    Entries made with ``add_session_config_entry`` cannot be listed.
    """
    options = _import_onnxruntime().SessionOptions() if options is None else options
    names = (name for name in dir(options) if not name.startswith("_"))
    values = ((name, getattr(options, name)) for name in names)
    return tuple((name, value) for name, value in values if not callable(value))


def _check_contract(session: onnxruntime.InferenceSession, path: Path) -> tuple[int | None, bool]:
    """Return the input's fixed side (or None) and whether the batch is dynamic."""
    inputs = session.get_inputs()
    shape = inputs[0].shape
    fits = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(shape) == 4
    if not fits or shape[1] != 3 or (isinstance(shape[2], int) and shape[2] != shape[3]):
        found = ", ".join(f"{item.name} {item.type} {item.shape}" for item in inputs)
        raise WeightsError(
            f"{path}: its inputs are {found}; expected one float32 input (N,3,H,W) with H = W."
        )
    output = session.get_outputs()[0]
    if len(output.shape) != 4 or output.shape[1] != 1:
        raise WeightsError(
            f"{path}: its first output {output.name} has shape {output.shape}; expected (N,1,h,w)."
        )
    size = shape[2] if isinstance(shape[2], int) else None
    return size, not isinstance(shape[0], int)


def _import_onnxruntime() -> Any:
    # From 1.31 on, importing it reports to its makers and writes an identifier into the home
    # directory, on Linux and macOS too. Nobody who asked us for a mask asked for that. A value
    # set by the user stands; where the host has imported it already, this comes too late.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    remedy = (
        "install it with `pip install onnxruntime`, or for a GPU with "
        "`pip install onnxruntime-gpu`."
    )
    with importing("onnxruntime", remedy):
        import onnxruntime
    return onnxruntime
