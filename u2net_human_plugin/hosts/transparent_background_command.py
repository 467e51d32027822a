"""transparent-background's command gets ``--model``, which means ``--mode``, and short errors."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from u2net_human_plugin.errors import PluginError
from u2net_human_plugin.weights import MODEL_NAME


def with_model_option(host_parse_args: Callable[[], Any]) -> Callable[[], Any]:
    """Return the host's ``parse_args`` with an option ``--model NAME`` that means ``--mode NAME``.

    The host builds its parser and parses in one function. While that function runs, the name
    ``argparse`` in its module is bound to a copy of that module with our ``ArgumentParser``.
    """

    @functools.wraps(host_parse_args)
    def parse_args() -> Any:
        names = host_parse_args.__globals__
        original = names["argparse"]
        stand_in = ModuleType("argparse")
        stand_in.__dict__.update(vars(original), ArgumentParser=_Parser)
        names["argparse"] = stand_in
        try:
            return host_parse_args()
        finally:
            names["argparse"] = original

    return parse_args


class _Parser(argparse.ArgumentParser):
    """An argument parser that gets one more option just before it parses."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        default = self.get_default("mode")
        try:
            self.add_argument(
                "--model", metavar="MODE", help=f"Same as --mode. {MODEL_NAME} finds people."
            )
            # With --model, these abbreviations of --mode would be ambiguous.
            self.add_argument("--m", "--mo", "--mod", dest="mode", help=argparse.SUPPRESS)
        except argparse.ArgumentError:  # this version of the host has such an option itself
            return super().parse_args(args, namespace)
        self.set_defaults(mode=None)
        parsed = super().parse_args(args, namespace)
        model = vars(parsed).pop("model")
        if None not in (parsed.mode, model) and parsed.mode != model:
            self.error(f"--mode {parsed.mode} and --model {model} differ; give one of them")
        parsed.mode = parsed.mode or model or default
        return parsed


def with_short_errors(host_console: Callable[[], Any]) -> Callable[[], Any]:
    """Return the host's command; an error of this package ends it with one line, no traceback."""

    @functools.wraps(host_console)
    def console() -> Any:
        try:
            return host_console()
        except PluginError as error:
            sys.exit(f"transparent-background: error: {error}")

    return console
