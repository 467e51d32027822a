"""An option that a remote caller got wrong, as rembg's web server can answer it.

rembg's server has no handler for errors of its models: they end as status 500 and a traceback
in its log. An ``HTTPException`` needs none, FastAPI and Starlette answer it themselves. This
module is imported only where Starlette is loaded already.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException

from u2net_human_plugin.errors import OptionError


class BadRequestOptionError(OptionError, HTTPException):
    """An :class:`OptionError` that is answered with status 400 and its sentence as "detail"."""

    def __init__(self, message: str) -> None:
        HTTPException.__init__(self, status_code=400, detail=message)
        self.args = (message,)  # as of every error of ours, and what pickle makes it from

    def __str__(self) -> str:
        return self.detail
