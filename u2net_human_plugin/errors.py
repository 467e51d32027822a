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
