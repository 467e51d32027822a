"""python -m finetune benchmark server: rembg's HTTP server with our model, under load.

It checks what matters to a user who runs ``rembg s`` for weeks: answers are right while many
clients ask at once; memory levels off; the session that the server keeps for every new ``extras``
string costs next to no memory; no threads are left behind. All of it runs on 127.0.0.1.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from ..files import write_text
from .running_server import Question, Server, make_questions, running_server

#: The limit of memory's growth from the first fifth of the load to its end, as a share.
GROWTH = 0.05
#: The limit of memory's growth by all sessions for different extras together, in bytes.
EXTRAS_GROWTH = 5_000_000
#: Seconds to wait for idle threads: after ten, the server ends them at the next request.
_IDLE_S = 12
_MB = 1e6


def server(
    clients: Annotated[int, typer.Option(help="how many ask at a time")] = 16,
    requests: Annotated[int, typer.Option(help="how many, with pictures of mixed sizes")] = 500,
    extras: Annotated[int, typer.Option(help="how many different strings of options")] = 1000,
    minutes: Annotated[float, typer.Option(help="the longest that all of it may take")] = 60,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the figures to this file as well")
    ] = None,
) -> None:
    """Put rembg's HTTP server under load, on 127.0.0.1; end with 0 if all limits are kept."""
    try:
        questions = make_questions()
        with running_server(minutes * 60) as running:
            figures = measure(running, questions, clients, requests, extras)
    except TimeoutError:
        sys.exit(f"not finished after {minutes} minutes (--minutes)")
    except RuntimeError as error:
        sys.exit(str(error))
    for line in figures["wrong"][:10]:
        print(f"wrong answer: {line}")
    print(describe(figures))
    if json_file:
        write_text(json_file, json.dumps(figures, indent=1) + "\n")
    missed = objections(figures)
    print("\n".join(f"FAILED: {line}" for line in missed) or "all within the limits")
    if missed:
        raise typer.Exit(1)


def measure(
    server: Server, questions: list[Question], clients: int, requests: int, extras: int
) -> dict[str, Any]:
    """Measure everything. The extras come first: memory that the load frees would hide theirs.

    Args:
        server: a running server.
        questions: the requests, with their right answers; the first must be small.
        clients: how many ask at a time.
        requests: how many, each of ``questions`` in turn.
        extras: how many different extras.

    Returns:
        The numbers ``clients``, ``requests`` and ``extras``; ``requests_per_second``; ``wrong``,
        a line for each wrong answer; ``memory_after_each_fifth`` of the requests and
        ``extras_growth``, resident memory in bytes; ``threads_before`` and ``threads_after``.

    Raises:
        TimeoutError: the time for the whole benchmark is over.
        RuntimeError: the server has ended.
    """
    small = questions[0]
    wrong = [server.wrong(small)]
    threads = server.process.num_threads()
    with ThreadPoolExecutor(clients) as pool:

        def ask(given: Iterable[tuple[Question, dict[str, int] | None]]) -> None:
            wrong.extend(pool.map(lambda one: server.wrong(*one), given))

        ask((small, {"warming up": number}) for number in range(4 * clients))
        # One request at a time, until the extras are measured: the allocator keeps more memory
        # the more threads are at work at once, and that is not the cost of a session.
        wrong.extend(server.wrong(small, {"alone": number}) for number in range(clients))
        before = server.memory
        wrong.extend(server.wrong(small, {"number": number}) for number in range(extras))
        extras_growth = server.memory - before

        memory, start = [], time.monotonic()
        in_turn = itertools.cycle(questions)
        for fifth in range(5):
            count = requests * (fifth + 1) // 5 - requests * fifth // 5
            ask((question, None) for question in itertools.islice(in_turn, count))
            memory.append(server.memory)
        seconds = time.monotonic() - start

    time.sleep(_IDLE_S)
    wrong.append(server.wrong(small))
    return {
        "clients": clients,
        "requests": requests,
        "requests_per_second": requests / seconds,
        "wrong": [reason for reason in wrong if reason],
        "memory_after_each_fifth": memory,
        "extras": extras,
        "extras_growth": extras_growth,
        "threads_before": threads,
        "threads_after": server.process.num_threads(),
    }


def describe(figures: Mapping[str, Any]) -> str:
    """The figures of :func:`measure` in words."""
    memory = figures["memory_after_each_fifth"]
    return "\n".join(
        [
            f"{figures['requests']} requests of mixed sizes from {figures['clients']} clients: "
            f"{figures['requests_per_second']:.1f} a second, {len(figures['wrong'])} wrong answers",
            "memory after each fifth of them: "
            + ", ".join(f"{value / _MB:.0f}" for value in memory)
            + f" MB ({memory[-1] / memory[0] - 1:+.1%} since the first; limit {GROWTH:.0%})",
            f"{figures['extras']} different extras: {figures['extras_growth'] / _MB:+.1f} MB "
            f"(limit {EXTRAS_GROWTH / _MB:.0f} MB)",
            f"threads: {figures['threads_before']} before, {figures['threads_after']} after",
        ]
    )


def objections(figures: Mapping[str, Any]) -> list[str]:
    """The limits that the figures of :func:`measure` do not keep; empty if they keep all."""
    memory = figures["memory_after_each_fifth"]
    checks = {
        "wrong answers": bool(figures["wrong"]),
        "memory does not level off": memory[-1] > memory[0] * (1 + GROWTH),
        "sessions for different extras cost memory": figures["extras_growth"] > EXTRAS_GROWTH,
        "threads are left behind": figures["threads_after"] > figures["threads_before"],
    }
    return [name for name, failed in checks.items() if failed]
