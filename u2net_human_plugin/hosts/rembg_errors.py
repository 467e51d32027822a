"""A wrong option as rembg's command and its web server can show it to who gave it.

Neither expects errors of its models: the command ends with a traceback, the server answers with
status 500 and writes one into its log. Their frameworks know kinds of errors that are meant for the
caller, so ours is of these kinds, too. Imported only where Starlette is loaded, as it is in both.
"""

from __future__ import annotations

from click import ClickException
from starlette.exceptions import HTTPException

from u2net_human_plugin.errors import OptionError


class RembgVariableError(OptionError, ClickException):
    """A wrong environment variable: the command ends with it in one line.

    For a server it is no caller's mistake, hence status 500.
    """

    def __init__(self, message: str) -> None:
        ClickException.__init__(self, message)

    def __str__(self) -> str:
        return self.message


class RembgOptionError(OptionError, HTTPException, ClickException):
    """An :class:`OptionError` that a command ends with in one line, and a server answers with 400.

    The sentence is in the answer's JSON as "detail".
    """

    def __init__(self, message: str) -> None:
        HTTPException.__init__(self, status_code=400, detail=message)
        ClickException.__init__(self, message)  # the last: it sets what pickle makes this from

    def __str__(self) -> str:
        return self.message
