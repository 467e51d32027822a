"""u2net_human_ft as one of rembg's sessions.

rembg has no plugin point. Its models stand in a few lists and a dictionary of
``rembg.sessions``, which the commands, the server, the web page and ``new_session`` read.
Our entry is added to these very objects, because others hold references to them.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Of our own, only what is light: numpy and Pillow wait until there is a session.
from u2net_human_plugin.errors import HostError, OptionError, PluginError
from u2net_human_plugin.weights import ENVIRONMENT_VARIABLE, MODEL_NAME, find_weights

if TYPE_CHECKING:
    from PIL import Image

    from u2net_human_plugin.options import Options

CPU = "CPUExecutionProvider"

#: Keywords that ask for a file to load or for code to run. rembg's server hands the session
#: a remote caller's keywords, so these are refused rather than obeyed, and, since their
#: owner wants something, refused rather than ignored.
REFUSED = ("checkpoint", "ckpt", "detector", "model_path", "network", "weights")

#: Keywords of every rembg session that are in none of its signatures.
REMBGS_OWN = frozenset({"providers", "putalpha", "sess_opts"})


def patch(module: ModuleType) -> None:
    """Add the session to ``rembg.sessions``: to all of its registries, or to none.

    Also takes the module ``rembg``, to notice a version that has no ``rembg.sessions``.

    Raises:
        HostError: this rembg is too old or too new, or has a model of our name.
    """
    if module.__name__ == "rembg":
        # Looking for a submodule would import a package that has removed itself once more.
        there = sys.modules.get("rembg") is module and "rembg.sessions" not in sys.modules
        if there and find_spec("rembg.sessions") is None:
            raise HostError("this rembg is too old: it has no module rembg.sessions")
        return
    base = _member(module, "BaseSession", type)
    names = _member(module, "sessions_names", list)
    classes = _member(module, "sessions_class", list)
    # Not in all versions. What has no credentials and no download of its own is in each.
    by_name = _member(module, "sessions", dict, {})
    free = _member(module, "sessions_names_no_credentials", list, [])
    downloadable = _member(module, "sessions_names_downloadable", list, [])

    if any(issubclass(item, Session) for item in classes):
        return
    if MODEL_NAME in names or MODEL_NAME in by_name:
        raise HostError(f"rembg already has a model named {MODEL_NAME}")
    session = _session_class(base)
    additions: list[tuple[list[Any], Any]] = [
        (names, MODEL_NAME),
        (classes, session),
        (free, MODEL_NAME),
        (downloadable, MODEL_NAME),
    ]
    try:
        for registry, entry in additions:
            registry.append(entry)
        by_name[MODEL_NAME] = session
    except BaseException:
        for registry, entry in additions:
            if entry in registry:
                registry.remove(entry)
        raise


class Session:
    """What makes a rembg session ours; combined with rembg's ``BaseSession`` in :func:`patch`.

    Sessions are cheap: all of a process share one loaded network per weights file,
    providers and session options. Safe to use from several threads.

    Args:
        model_name: the name the session was asked for by.
        sess_opts: onnxruntime's settings, an ``onnxruntime.SessionOptions``.
        args: rembg up to 2.0.61 passes ``providers`` here.
        kwargs: ``providers``, a list of execution providers as in every rembg session; and
            the fields of :class:`~u2net_human_plugin.options.Options`. Others are rembg's.

    Raises:
        OptionError: a wrong value, a misspelt option, or a keyword that asks for a file.
        WeightsError: the weights are damaged or not a network of the right kind.
        MissingExtraError: ``crop="yolo"`` is asked for and ultralytics is not installed.

    Where rembg's command or server runs, these errors are also of their kinds, see
    :mod:`u2net_human_plugin.hosts.rembg_errors`.
    """

    # BaseSession's __init__ is not called: it would load one network for each session.
    def __init__(self, model_name: str, sess_opts: Any = None, *args: Any, **kwargs: Any) -> None:
        from u2net_human_plugin.network import default_providers, load_onnx
        from u2net_human_plugin.options import Options
        from u2net_human_plugin.segmenter import HumanSegmenter
        from u2net_human_plugin.yolo import preload

        wanted = kwargs.get("providers", args[0] if args else None)
        with _told(from_environment=True):
            options = Options.from_environment()
        with _told():
            options = _updated(options, kwargs)
            _check_session_options(sess_opts)
            providers = default_providers() if wanted is None else _available(wanted)
            self._network = load_onnx(find_weights(), providers, sess_opts)
            # rembg's `p` goes on past a picture's error and ends with 0. What would be the error
            # of every picture has to come before the first one.
            if options.crop == "yolo":
                preload()
        self.model_name = model_name
        self._segmenter = HumanSegmenter(network=self._network, options=options)
        _warn_of_fallback(wanted or providers, self.inner_session.get_providers())

    @property
    def inner_session(self) -> Any:
        """As in every rembg session: the ``onnxruntime.InferenceSession``, here a shared one."""
        return self._network.session

    def predict(self, img: Image.Image, *_args: Any, **kwargs: Any) -> list[Image.Image]:
        """One mask, "L" and of the image's size. Options given here hold for this image."""
        with _told():
            options = _updated(self._segmenter.options, kwargs)
            # Meant for a session, but an older rembg's server makes one for the first request
            # alone; a wrong value of a later one is a mistake all the same.
            _check_session_options(kwargs.get("sess_opts"))
            if (wanted := kwargs.get("providers")) is not None:
                _available(wanted)
            return [self._segmenter.mask(img, options)]

    @classmethod
    def download_models(cls, *_args: Any, **_kwargs: Any) -> str:
        """Check the weights file and return its path. Nothing is ever downloaded."""
        weights = find_weights()
        weights.read()
        return str(weights.path)

    @classmethod
    def name(cls, *_args: Any, **_kwargs: Any) -> str:
        """The model's name."""
        return MODEL_NAME


def __getattr__(name: str) -> Any:
    """The session class by its name, as pickle looks for it and as an entry point would."""
    if name == "U2netHumanFtSession":
        from u2net_human_plugin import _startup

        if not _startup.switched_off():
            from rembg.sessions.base import BaseSession

            return _session_class(BaseSession)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _session_class(base: type) -> type:
    return type("U2netHumanFtSession", (Session, base), {"__module__": __name__})


def _member(module: ModuleType, name: str, kind: type, default: Any = None) -> Any:
    value = getattr(module, name, default)
    if not isinstance(value, kind):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise HostError(f"this rembg is too old or too new: {module.__name__}.{name} is {found}")
    return value


@contextmanager
def _told(from_environment: bool = False) -> Iterator[None]:
    """Turn our errors into those that rembg's command or server shows, where one of them runs."""
    try:
        yield
    except PluginError as error:
        if "starlette.exceptions" not in sys.modules:
            raise
        try:
            from u2net_human_plugin.hosts.rembg_errors import told
        except ImportError:  # somebody's own server, without rembg's command line
            raise error from None
        raise told(error, from_environment) from None


def _updated(options: Options, keywords: Mapping[str, Any]) -> Options:
    """``options`` with what the keywords ask for; what means nothing to us or rembg is logged."""
    from u2net_human_plugin.options import warn_of_unknown

    for name in REFUSED:
        if keywords.get(name) is not None:
            raise OptionError(
                f"{name} cannot be given as a keyword, because rembg's server passes strangers' "
                f"keywords on. Your own weights: set {ENVIRONMENT_VARIABLE} to their path; your "
                "own detector: HumanSegmenter."
            )
    # What remove() has a parameter for is its own affair, even if an option of ours is called
    # so: rembg's commands hand each of their switches, given or not, to the session as well.
    remove = getattr(sys.modules.get("rembg.bg"), "remove", None)
    others = _parameters(remove) | REMBGS_OWN
    ours = {name: value for name, value in keywords.items() if name not in others}
    updated = options.updated(ours)
    warn_of_unknown(ours, REFUSED)
    return updated


@functools.cache
def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters if function else ())


def _check_session_options(given: Any) -> None:
    import onnxruntime

    if given is not None and not isinstance(given, onnxruntime.SessionOptions):
        raise OptionError(f"sess_opts={given!r:.60}: expected an onnxruntime.SessionOptions.")


def _available(wanted: Any) -> list[Any]:
    """The wanted providers that this onnxruntime has, each once, the CPU at last.

    A name may come from a stranger, so it has to be one that onnxruntime knows; this also
    bounds the number of networks that can be asked for. A provider's settings can name
    files. They go with it in a tuple, which JSON cannot express: only code can pass them.
    """
    import onnxruntime

    known, available = onnxruntime.get_all_providers(), onnxruntime.get_available_providers()
    chosen: dict[str, Any] = {}
    for item in wanted if isinstance(wanted, list | tuple) else [wanted]:
        name = _provider_name(item)
        if not isinstance(wanted, list | tuple) or name not in known:
            raise OptionError(
                f"providers: {item!r:.60} given; expected a list with names out of "
                f"{', '.join(available)}."
            )
        if name in available:
            chosen.setdefault(name, item)
    cpu = chosen.pop(CPU, CPU)
    return [*chosen.values(), cpu]


def _provider_name(item: Any) -> Any:
    return item[0] if isinstance(item, tuple) and len(item) == 2 else item


def _warn_of_fallback(wanted: list[Any], active: list[str]) -> None:
    accelerators = [name for name in map(_provider_name, wanted) if name != CPU]
    if accelerators and not set(accelerators) & set(active):
        warnings.warn(
            f"{', '.join(accelerators)} was requested, but {MODEL_NAME} runs on the CPU. "
            "Most often another onnxruntime package is installed (the GPU needs "
            "onnxruntime-gpu alone, without onnxruntime), or the CUDA or cuDNN libraries "
            "that it was built for are missing.",
            RuntimeWarning,
            stacklevel=4,
        )
