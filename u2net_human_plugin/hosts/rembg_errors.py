"""Our errors in the form that rembg's command and its web server show to their users.

Neither expects errors of its models: the command ends with a traceback, the server answers with
status 500 and writes a traceback into its log. Their frameworks, click and Starlette, have kinds
of errors for sentences that a user is to read. The errors here are of these kinds, and still of
ours. Imported only where Starlette is loaded, as it is in both.
"""

from __future__ import annotations

from click import ClickException
from starlette.exceptions import HTTPException

from u2net_human_plugin.errors import (
    BrokenExtraError,
    DataError,
    MissingExtraError,
    OptionError,
    PluginError,
    WeightsError,
)
from u2net_human_plugin.options import warn_once

_SEE_THE_LOG = "u2net_human_ft is not set up rightly on this server; its log says what is wrong."


class RembgError(HTTPException, ClickException):
    """An error that ends the command in one line, its message, with exit status 1.

    A server answers with :attr:`status`, and the message is in the answer's JSON as "detail".
    """

    #: 400 for what the caller can mend, 500 for what the server's owner can.
    status = 500

    def __init__(self, message: str) -> None:
        HTTPException.__init__(self, self.status, message)
        ClickException.__init__(self, message)  # the last: it sets what pickle makes this from

    def __str__(self) -> str:
        return self.message


class _PrivateError(RembgError):
    """An error with a message that may name files: for the log, not for strangers."""

    @property
    def detail(self) -> str:
        """What a server answers with. When it does, the message is logged, once."""
        warn_once(self.message)
        return _SEE_THE_LOG

    @detail.setter
    def detail(self, message: str) -> None:
        """Set by Starlette."""


class RembgOptionError(RembgError, OptionError):
    """An option that the caller gave."""

    status = 400


class RembgDataError(RembgError, DataError):
    """A picture that the caller gave."""

    status = 400


class RembgVariableError(RembgError, OptionError):
    """An environment variable of the command or the server."""


class RembgMissingExtraError(RembgError, MissingExtraError):
    """Something is to be installed."""


class RembgBrokenExtraError(_PrivateError, BrokenExtraError):
    """Something is to be installed anew."""


class RembgWeightsError(_PrivateError, WeightsError):
    """A weights file is to be replaced."""


_KINDS: dict[type[PluginError], type[RembgError]] = {
    OptionError: RembgOptionError,
    DataError: RembgDataError,
    MissingExtraError: RembgMissingExtraError,
    BrokenExtraError: RembgBrokenExtraError,
    WeightsError: RembgWeightsError,
}


def told(error: PluginError, from_environment: bool = False) -> Exception:
    """The same error as one of the kinds above; itself if there is none for it."""
    kind = _KINDS.get(type(error))
    if from_environment and kind is RembgOptionError:
        kind = RembgVariableError
    return kind(str(error)) if kind else error
