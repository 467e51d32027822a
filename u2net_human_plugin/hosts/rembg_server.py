"""``rembg s`` refuses to start if our environment variables ask for what cannot be had.

The server makes a session when a request asks for one. Unchecked, it would start, and answer
every request for our model with status 500.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from u2net_human_plugin.options import ENVIRONMENT_PREFIX
from u2net_human_plugin.weights import MODEL_NAME


def patch(module: ModuleType) -> None:
    """Put the check before the command of ``rembg.commands.s_command``.

    A version that has no such command is left as it is: its requests get the same sentence.
    """
    command = getattr(module, "s_command", None)
    run = getattr(command, "callback", None)
    if callable(run) and not hasattr(run, "_u2net_human_plugin"):
        command.callback = _checked(run)  # type: ignore[union-attr]
        command.callback._u2net_human_plugin = True  # type: ignore[union-attr]


def _checked(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def checked(*args: Any, **keywords: Any) -> Any:
        from rembg.session_factory import new_session
        from rembg.sessions import sessions_names

        # Without a variable of ours the server may be meant for other models alone.
        meant_for_ours = any(name.startswith(ENVIRONMENT_PREFIX) for name in os.environ)
        if meant_for_ours and MODEL_NAME in sessions_names:
            new_session(MODEL_NAME)  # as for a request; its errors end the command in one line
        return run(*args, **keywords)

    return checked
