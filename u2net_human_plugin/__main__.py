"""``python -m u2net_human_plugin doctor | batch | demo``."""

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

    batch = commands.add_parser("batch", help="many pictures, on all cores or a cluster")
    batch.add_argument(
        "source", help="a folder, file or quoted glob, or a URL: s3://, gs://, hf://"
    )
    batch.add_argument("dest", help="a folder or its URL; gets the table cutouts.parquet, too")
    batch.add_argument("--format", choices=("png", "webp", "mask"), default="png")
    batch.add_argument("--actors", type=int, help="processes (default: as many as cores)")
    batch.add_argument(
        "--gpus-per-actor", type=float, default=0, help="a share of a GPU each; default: CPU only"
    )
    batch.add_argument("--ray-address", help='a cluster\'s, or "auto"; default: a local one')

    demo = commands.add_parser("demo", help="a web page to try it in, on 127.0.0.1")
    demo.add_argument("--port", type=int, default=7860, help="default: 7860")

    given = parser.parse_args(arguments)
    if given.command == "batch":
        from .batch.command import main as run_batch

        return run_batch(given)
    if given.command == "demo":
        from .demo import main as run_demo

        return run_demo(given)
    if given.command == "doctor":
        from .doctor import main as run_doctor

        return run_doctor(given.json)
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
