"""The errors this package raises on purpose. Each message names the cause and the remedy."""

from __future__ import annotations


class PluginError(ValueError):
    """Base of all errors raised on purpose."""


class WeightsError(PluginError):
    """A weights file is missing, damaged or of the wrong kind."""


class OptionError(PluginError):
    """An option has a value, or a name, that does not exist."""


class MissingExtraError(PluginError, ImportError):
    """A feature needs an optional dependency; the message names the extra to install."""


class DataError(PluginError):
    """A picture, mask or manifest cannot be used."""


class HostError(PluginError):
    """A host is not as its adapter knows it: too old, too new, or the model's name is taken."""
