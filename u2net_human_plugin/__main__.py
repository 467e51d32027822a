"""``python -m u2net_human_plugin doctor | batch | demo | benchmark | stress``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m u2net_human_plugin")
    commands = parser.add_subparsers(dest="command", required=True)

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

    benchmark.add_argument(
        "--batch",
        type=Path,
        help="measure `batch` beside `rembg p` on this folder's photos instead",
    )
    benchmark.add_argument("--photos", type=int, default=200, help="for --batch (default: 200)")

    stress = commands.add_parser("stress", help="rembg's HTTP server under load, on 127.0.0.1")
    stress.add_argument("--clients", type=int, default=16, help="requests at a time (default: 16)")
    stress.add_argument("--requests", type=int, default=500, help="mixed sizes (default: 500)")
    stress.add_argument("--extras", type=int, default=1000, help="different ones (default: 1000)")
    stress.add_argument("--minutes", type=float, default=60, help="at most (default: 60)")
    stress.add_argument("--json", type=Path, help="write the figures to this file as well")

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
    if given.command == "stress":
        from .stress import main as run_stress

        return run_stress(given)
    if given.batch is not None:
        from .benchmark_batch import main as run_batch_benchmark

        return run_batch_benchmark(given.batch, given.photos)
    from .benchmark import main as run_benchmark

    return run_benchmark(given)


if __name__ == "__main__":
    sys.exit(main())
