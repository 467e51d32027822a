"""``python -m u2net_human_plugin doctor``."""

from __future__ import annotations

import argparse
import sys

from . import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m u2net_human_plugin")
    parser.add_argument("--version", action="version", version=f"u2net-human-plugin {__version__}")
    commands = parser.add_subparsers(dest="command")

    doctor = commands.add_parser("doctor", help="what is installed, active and wrong, if anything")
    doctor.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0

    from .doctor import main as run_doctor

    return run_doctor(given.json)


if __name__ == "__main__":
    sys.exit(main())
