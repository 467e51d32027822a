"""From photos to a training set: inspect each, decide, write what stays.

The result depends on the photos and the plan alone. A run notes in ``.prepare`` what it has done;
a later run, with more photos, does not do that again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..files import TEMPORARY, only_run
from ..store import Store
from .inspection import Inspection
from .inspector import Inspector
from .manifest import Row, write_manifest
from .parallel import in_threads
from .photo import Photo
from .plan import Aside, Outcome, Plan
from .selection import Inspected, Placed, Selection
from .writer import Writer, to_row

T = TypeVar("T")

FOLDERS = ("images", "masks", "cutouts", "bystanders")
MANIFEST = "manifest.jsonl"


def collect(photos: Sequence[Photo], out: Path, plan: Plan, quiet: bool = False) -> Outcome:
    """Build the training set in ``out``; its manifest is replaced at the very end.

    Args:
        photos: what may become part of the set.
        out: the set's folder; it is made if it is missing.
        plan: the settings.
        quiet: whether to show no progress.

    Raises:
        DataError: another run is at work in ``out``, or its store is damaged.
        OSError: nothing can be written; what was finished is kept.
    """
    state = out / ".prepare"
    for folder in (*(out / name for name in FOLDERS), state / "labels"):
        folder.mkdir(parents=True, exist_ok=True)
    with only_run(state, "prepare"), Store(state / "progress.sqlite") as store:
        for leftover in _files(out, (*FOLDERS, ".prepare/labels", "."), f".*{TEMPORARY}"):
            leftover.unlink()
        outcome = Outcome(photos=len(photos))
        run = _Run(out, plan, outcome, store, quiet)
        selection = Selection(plan, outcome, store)
        inspected = run.inspect(selection.admissible(photos))
        unique = selection.without_copies(selection.usable(inspected))
        rows = run.write(selection.into_splits(unique))
        outcome.rows = rows
        write_manifest(out / MANIFEST, rows)
        named = {file for row in rows for file in _files_of(row, out)}
        left = {file.relative_to(out).as_posix() for file in _files(out, FOLDERS, "*")} - named
        outcome.unreferenced = sorted(left)
    return outcome


@dataclass(frozen=True)
class _Run:
    out: Path
    plan: Plan
    outcome: Outcome
    store: Store
    quiet: bool

    @property
    def inspector(self) -> Inspector:
        plan = self.plan
        labels = self.out / ".prepare" / "labels"
        return Inspector(labels, plan.detector, plan.detector_id, plan.labeler)

    def inspect(self, photos: Iterable[Photo]) -> list[Inspected]:
        """Inspect every photo that no earlier run has inspected; those that fail are left out."""
        inspector = self.inspector

        def look(photo: Photo) -> Inspected:
            try:
                key = inspector.key(photo)
            except OSError as error:
                return Inspected(photo, Inspection("", reason="unreadable", detail=str(error)))
            known = self.store.get("inspections", key)
            if known is not None and _label_is_there(inspector, photo, known):
                return Inspected(photo, Inspection.from_json(known))
            inspection = inspector.inspect(photo, key)
            self.store.put("inspections", key, inspection.to_json())
            self.outcome.inspected += 1
            return Inspected(photo, inspection)

        return self._each("looking at pictures", look, list(photos), lambda photo: photo)

    def write(self, placed: Sequence[Placed]) -> list[Row]:
        """Write the pictures, masks and cut-outs that are not there yet; return all rows."""
        writer = Writer(self.out, self.plan.write_options, self.inspector)

        def rows_of(one: Placed) -> list[Row]:
            photo, inspection, decided = one
            key = self.plan.write_options.key(inspection)
            written = self.store.get("written", key)
            if written is None or not all(_is_there(values, self.out) for values in written):
                written = writer.write(photo, inspection)
                self.store.put("written", key, written)
                self.outcome.written += 1
            extra = {"source": photo.source, "licence": photo.licence} | decided
            extra["origin"] = {"name": photo.name, "sha256": inspection.sha256}
            searched = self.inspector.searches(photo)
            extra["detector"] = self.plan.detector_id if searched else None
            if inspection.labelled_by:
                extra["labelled_by"] = inspection.labelled_by
            extra |= photo.extra
            rows = []
            for values in written:
                doubtful = "unlabelled_person" in values.get("flags", ())
                if doubtful and self.plan.unlabelled_person == "aside":
                    detail = f"a clear person outside the mask, in {values['image']}"
                    self.outcome.set_aside(photo, "unlabelled person", detail)
                else:
                    rows.append(to_row(values, self.out, extra))
            return rows

        written = self._each("writing files", rows_of, placed, lambda one: one.photo)
        return [row for rows in written for row in rows]

    def _each(
        self,
        doing: str,
        work: Callable[[Any], T],
        entries: Sequence[Any],
        photo_of: Callable[[Any], Photo],
    ) -> list[T]:
        """What ``work`` makes of each entry, in threads; the outcome lists those that fail."""

        def failed(entry: Any, reason: str) -> None:
            self.outcome.failed.append(Aside(photo_of(entry).name, doing, reason))

        return in_threads(doing, work, entries, failed, self.plan.workers, self.quiet)


def _label_is_there(inspector: Inspector, photo: Photo, known: dict[str, Any]) -> bool:
    made = photo.mask == "label" and known.get("labelled_by")
    return not made or (inspector.labels / f"{known['key']}.png").is_file()


def _is_there(values: dict[str, Any], out: Path) -> bool:
    files = (values.get(name) for name in ("image", "mask", "cutout", "bystanders"))
    return all((out / file).is_file() for file in files if file not in (None, "alpha"))


def _files_of(row: Row, out: Path) -> Iterator[str]:
    for file in (row.image, row.mask, row.bystanders):
        if isinstance(file, Path):
            yield file.relative_to(out).as_posix()
    if "cutout" in row.extra:
        yield str(row.extra["cutout"])


def _files(out: Path, folders: Iterable[str], pattern: str) -> Iterator[Path]:
    for folder in folders:
        yield from (file for file in (out / folder).glob(pattern) if file.is_file())
