"""The errors this package raises on purpose. Each message names the cause and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PluginError(ValueError):
    """Base of all errors raised on purpose."""


class WeightsError(PluginError):
    """A weights file is missing, damaged or of the wrong kind."""


class OptionError(PluginError):
    """An option has a value, or a name, that does not exist."""


class MissingExtraError(PluginError, ImportError):
    """A feature needs an optional dependency; the message names the extra to install."""


class BrokenExtraError(PluginError, ImportError):
    """An optional dependency is installed but cannot be imported; the message says why."""


class DataError(PluginError):
    """A picture, mask or manifest cannot be used."""


class HostError(PluginError):
    """A host is not as its adapter knows it: too old, too new, or the model's name is taken."""


def install_command(extra: str) -> str:
    """What installs an extra's packages, ``pip install "ultralytics>=8.3.47"``, for a message.

    The packages, and not this one with its extra: whether it came from a clone, a wheel or an
    index, it need not be on an index under its name, where it may be a stranger's.
    """
    from importlib.metadata import PackageNotFoundError, requires

    try:
        requirements = requires("u2net-human-plugin") or []
    except PackageNotFoundError:  # a folder on the path
        requirements = []
    # "ultralytics>=8.3.47; extra == 'yolo'", in either kind of quotes
    split = [requirement.replace("'", '"').partition(";") for requirement in requirements]
    wanted = [name.strip() for name, _, marker in split if f'extra == "{extra}"' in marker]
    return " ".join(["pip install", *(f'"{name}"' for name in wanted or [f".[{extra}]"])])


@contextmanager
def importing(package: str, remedy: str) -> Iterator[None]:
    """Around the import of an optional dependency: what its failure means to the user.

    Raises:
        MissingExtraError: it is not installed; the message ends with ``remedy``.
        BrokenExtraError: it is there, but a library or a package that it needs is not.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise MissingExtraError(f"{package} is not installed; {remedy}") from None
        raise BrokenExtraError(f"{package} cannot be imported: {error}") from error
