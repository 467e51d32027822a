"""``python -m u2net_human_plugin doctor | benchmark | stress``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m u2net_human_plugin")
    parser.add_argument("--version", action="version", version=f"u2net-human-plugin {__version__}")
    commands = parser.add_subparsers(dest="command")

    doctor = commands.add_parser("doctor", help="what is installed, active and wrong, if anything")
    doctor.add_argument("--json", action="store_true", help="for programs")

    benchmark = commands.add_parser(
        "benchmark", help="start-up, speed and memory, beside rembg's own u2netp"
    )
    benchmark.add_argument(
        "--u2netp", type=Path, help="the official u2netp.onnx; default: in rembg's model directory"
    )
    benchmark.add_argument(
        "--manifest", type=Path, help="compare the masks on this manifest's split, too"
    )
    benchmark.add_argument("--split", default="test", help="the manifest's split (default: test)")
    benchmark.add_argument("--limit", type=int, help="at most this many of the split's pictures")
    benchmark.add_argument("--rounds", type=int, default=7, help="timings each (default: 7)")
    benchmark.add_argument("--calls", type=int, default=1000, help="for memory (default: 1000)")
    benchmark.add_argument("--json", type=Path, help="write the figures to this file as well")

    stress = commands.add_parser("stress", help="rembg's HTTP server under load, on 127.0.0.1")
    stress.add_argument("--clients", type=int, default=16, help="requests at a time (default: 16)")
    stress.add_argument("--requests", type=int, default=500, help="mixed sizes (default: 500)")
    stress.add_argument("--extras", type=int, default=1000, help="different ones (default: 1000)")
    stress.add_argument("--minutes", type=float, default=60, help="at most (default: 60)")
    stress.add_argument("--json", type=Path, help="write the figures to this file as well")

    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    if given.command == "doctor":
        from .doctor import main as run_doctor

        return run_doctor(given.json)
    if given.command == "stress":
        from .stress import main as run_stress

        return run_stress(given)
    from .benchmark import main as run_benchmark

    return run_benchmark(given)


if __name__ == "__main__":
    sys.exit(main())
