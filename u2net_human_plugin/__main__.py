"""``python -m u2net_human_plugin doctor``."""

from __future__ import annotations

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m u2net_human_plugin")
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser("doctor", help="what is installed, active and wrong, if anything")
    doctor.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(arguments)

    from .doctor import main as run_doctor

    return run_doctor(given.json)


if __name__ == "__main__":
    sys.exit(main())
