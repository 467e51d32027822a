"""``python -m u2net_human_plugin batch SOURCE DEST``: what is missing in DEST is made.

Exit status: 0, all cut-outs are there; 1, some pictures failed; 2, it could not start, or Ray
failed; 130, stopped by Ctrl+C; 143, by SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from u2net_human_plugin.errors import DataError, OptionError, PluginError

from .actor import CutOut, Recipe, said
from .cluster import cluster, import_ray, places
from .plan import finished, output_names
from .storage import Folder, destination, find_pictures
from .table import NAME, Table, from_rows, schema

if TYPE_CHECKING:
    import pyarrow

#: Pictures of one task of an actor, which a killed one has to do again.
AT_A_TIME = 8
#: So often a picture is begun; that is more than once if the process that has it dies.
ATTEMPTS = 3
#: So many failed pictures are listed; the table has them all.
LISTED = 20
#: Seconds after which rows are written and it is said how far it is, from the first rows on; what
#: was made in the last of them is made again if this process is killed.
PATIENCE = 5


def main(given: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    try:
        return _run(given)
    except PluginError as error:
        print(f"batch: {error}", file=sys.stderr)
    except OSError as error:
        print(f"batch: {said(error)}", file=sys.stderr)
    except (KeyboardInterrupt, SystemExit) as stop:  # SystemExit is Ray's answer to SIGTERM
        print("batch: stopped; the same command goes on from here.", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    return 2


def _run(given: argparse.Namespace) -> int:
    if given.actors is not None and given.actors < 1:
        raise OptionError(f"--actors {given.actors}: expected a whole number from 1.")
    if given.gpus_per_actor < 0:
        raise OptionError(f"--gpus-per-actor {given.gpus_per_actor}: expected a number from 0.")
    import_ray()  # without it nothing of what follows can be done
    recipe = Recipe.from_environment(given.format)
    assert recipe.weights is not None
    dest = destination(given.dest)
    source, pictures, others = find_pictures(given.source, besides=dest)
    table = Table(dest)
    rows = table.collect().to_pylist()
    if strange := {row["folder"] for row in rows} - {source.path}:
        raise OptionError(
            f"{given.dest}: holds the cut-outs of {strange.pop()}, and names could be the same in "
            f"{source.path}. Choose another folder."
        )
    known = {row["source"]: row["output"] for row in rows}
    names = output_names(pictures, recipe.suffix, known)
    there = set(dest.names())
    done = finished(rows, recipe.weights.sha256, recipe.settings, there)
    todo = {name: names[name] for name in pictures if name not in done}
    print(
        f"{len(pictures)} pictures, {len(pictures) - len(todo)} of them done already.", flush=True
    )
    if others:
        print(f"Not pictures by their names: {len(others)}, such as {others[0]}.")
    try:
        if todo:
            with cluster(given.ray_address, given.actors) as ray:
                _make(ray, Job(source, dest, recipe, given.gpus_per_actor > 0), todo, given)
    finally:
        rows = table.collect().to_pylist()
    return _report(row for row in rows if row["source"] in todo)


class Job:
    """What an actor of the command needs to know; sent to each."""

    def __init__(self, source: Folder, dest: Folder, recipe: Recipe, on_gpu: bool) -> None:
        self.source, self.dest, self.recipe, self.on_gpu = source, dest, recipe, on_gpu

    def row(self, name: str, output: str, **columns: Any) -> dict[str, Any]:
        """A row of the table; columns that are not given are empty."""
        assert self.recipe.weights is not None
        row = dict.fromkeys(schema().names)
        row |= {"folder": self.source.path, "source": name, "output": output}
        row |= {"sha256": self.recipe.weights.sha256, "settings": self.recipe.settings}
        return {**row, **columns}


class CutOutFiles:
    """Reads, cuts and writes pictures: batches of Arrow, of names in, of rows of the table out."""

    def __init__(self, job: Job, attempts: Any) -> None:
        self.job, self.attempts = job, attempts
        self.cut_out = CutOut(job.recipe, job.on_gpu)

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        return from_rows([self._row(**item) for item in batch.to_pylist()])

    def _row(self, source: str, output: str) -> dict[str, Any]:
        import ray

        started = time.perf_counter()
        try:
            # What kills this process comes back to the next one, but not for ever.
            if ray.get(self.attempts.begin.remote(source)) > ATTEMPTS:
                raise DataError(f"the process that had it died, {ATTEMPTS} times.")
            columns = self.cut_out.cut(self.job.source.read(source))
            self.job.dest.write(output, columns.pop("cutout"))
        except Exception as error:  # noqa: BLE001 - a batch goes on, whatever a file holds
            columns = {"error": said(error)}
        self.attempts.end.remote(source)
        seconds = time.perf_counter() - started
        return self.job.row(source, output, **columns, seconds=seconds)


class Attempts:
    """Which pictures are being tried, and how often a process died of one: an actor of Ray."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, source: str) -> int:
        """How often this picture has been begun without an end, this time included."""
        self._begun[source] += 1
        return self._begun[source]

    def end(self, source: str) -> None:
        """It is done, or has failed in a way that the process survived."""
        del self._begun[source]


def _make(ray: Any, job: Job, todo: dict[str, str], given: argparse.Namespace) -> None:
    """Make the cut-outs; their rows are beside the table then."""
    actors = given.actors or places(ray.cluster_resources(), given.gpus_per_actor)
    tasks = -(-len(todo) // AT_A_TIME)
    items = [{"source": name, "output": output} for name, output in todo.items()]
    attempts = ray.remote(Attempts).options(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    rows = ray.data.from_items(items, override_num_blocks=tasks).map_batches(
        CutOutFiles,
        fn_constructor_args=[job, attempts.remote()],
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(actors, tasks)),
        num_gpus=given.gpus_per_actor or None,
        num_cpus=None if given.gpus_per_actor else 1,
    )
    # Nothing fetched ahead: rows would arrive only when the next ones are there, too.
    batches = rows.iter_batches(prefetch_batches=0, batch_size=None, batch_format="pyarrow")
    _keep(batches, Table(job.dest), len(todo))


def _keep(batches: Iterable[pyarrow.Table], table: Table, total: int) -> None:
    """Write rows beside the table, the first at once, and say how far it is."""
    started = due = time.monotonic()
    done, rows = 0, []
    try:
        for batch in batches:
            rows += batch.to_pylist()
            now = time.monotonic()
            if now >= due:
                table.add(rows)
                done, rows, due = done + len(rows), [], now + PATIENCE
                print(f"{done} of {total}, {done / (now - started):.2f} a second", flush=True)
    finally:
        table.add(rows)


def _report(rows: Iterable[dict[str, Any]]) -> int:
    rows = list(rows)
    failed = [row for row in rows if row["error"] is not None]
    print(f"{len(rows) - len(failed)} cut-outs made, {len(failed)} failed; see {NAME}.")
    if failed:
        width = max(len(row["source"]) for row in failed[:LISTED])
        for row in failed[:LISTED]:
            print(f"  {row['source']:<{width}}  {row['error']}")
        if len(failed) > LISTED:
            print(f"  and {len(failed) - LISTED} more")
    return 1 if failed else 0
