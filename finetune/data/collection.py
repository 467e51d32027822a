"""From photos to a training set: inspect each, decide, write what stays.

The result depends on the photos and the plan alone. What is done is noted in ``.prepare`` and not
done again when photos are added.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..files import TEMPORARY, only_run
from ..store import Store
from .inspection import Inspection
from .inspector import Inspector
from .manifest import Row, write_manifest
from .near_duplicates import Fingerprint, assign
from .parallel import in_threads
from .photo import Photo
from .plan import Aside, Outcome, Plan
from .writer import Writer, to_row

T = TypeVar("T")

FOLDERS = ("images", "masks", "cutouts", "bystanders")
MANIFEST = "manifest.jsonl"
#: Which mask is kept of a picture that is there twice: the one with the lowest number.
_TRUST = {"file": 0, "nobody": 1, "label": 2}


class _Inspected(NamedTuple):
    photo: Photo
    inspection: Inspection


class _Placed(NamedTuple):
    """A photo to write, with the split and group that its rows state."""

    photo: Photo
    inspection: Inspection
    decided: dict[str, Any]


def collect(photos: Sequence[Photo], out: Path, plan: Plan, quiet: bool = False) -> Outcome:
    """Build the training set in ``out``; its manifest is replaced at the very end.

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
        inspected = run.without_copies(run.usable(run.inspect(run.admissible(photos))))
        rows = run.write(run.into_splits(inspected))
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

    def aside(self, photo: Photo, reason: str, detail: str = "") -> None:
        self.outcome.aside.append(Aside(photo.name, reason, detail))

    def admissible(self, photos: Iterable[Photo]) -> Iterator[Photo]:
        """Photos without a problem whose licence the plan takes."""
        patterns = [pattern.casefold() for pattern in self.plan.licences]
        for photo in photos:
            licence = photo.licence.casefold()
            if photo.problem:
                self.aside(photo, "unusable pair", photo.problem)
            elif patterns and not any(fnmatch(licence, pattern) for pattern in patterns):
                self.aside(photo, "other licence", photo.licence or "none stated")
            else:
                yield photo

    def inspect(self, photos: Iterable[Photo]) -> list[_Inspected]:
        """Inspect every photo, or take the inspection of an earlier run."""
        inspector = self.inspector

        def look(photo: Photo) -> _Inspected:
            try:
                key = inspector.key(photo)
            except OSError as error:
                return _Inspected(photo, Inspection("", reason="unreadable", detail=str(error)))
            known = self.store.get("inspections", key)
            if known is not None and _label_is_there(inspector, photo, known):
                return _Inspected(photo, Inspection.from_json(known))
            inspection = inspector.inspect(photo, key)
            self.store.put("inspections", key, inspection.to_json())
            self.outcome.inspected += 1
            return _Inspected(photo, inspection)

        return self._each("looking at pictures", look, list(photos), lambda photo: photo)

    def usable(self, inspected: Iterable[_Inspected]) -> Iterator[_Inspected]:
        """The photos that the plan takes."""
        for one in inspected:
            photo, inspection = one
            found_empty = not inspection.people and not photo.shows_nobody
            if inspection.reason:
                self.aside(photo, inspection.reason, inspection.detail)
                continue
            if not photo.shows_nobody:
                self.outcome.masks[photo.source] += 1
                doubts = self.outcome.doubts.setdefault(photo.source, Counter())
                doubts.update(inspection.flags)
            if found_empty and self.plan.without_person == "reject":
                self.aside(photo, "nobody in it", "asked for by --without-person reject")
            else:
                yield one

    def without_copies(self, inspected: Iterable[_Inspected]) -> list[_Inspected]:
        """Each picture file once: that of test before train, the surest mask first."""

        def worth(one: _Inspected) -> tuple[int, int]:
            split = {"test": 0, "val": 1}.get(one.photo.split or "", 2)
            return split, _TRUST[_kind(one.photo)]

        inspected = list(inspected)
        best: dict[str, _Inspected] = {}
        for one in sorted(inspected, key=worth):
            best.setdefault(one.inspection.sha256, one)
        kept = []
        for one in inspected:
            holder = best[one.inspection.sha256]
            if holder is one:
                kept.append(one)
            else:
                self.aside(one.photo, "same file", f"as {holder.photo.name}")
        return kept

    def into_splits(self, inspected: Sequence[_Inspected]) -> list[_Placed]:
        """Each with "split" and, where others look alike, "group"; those that clash, left out."""
        fingerprints = [
            Fingerprint(
                inspection.sha256,
                inspection.hashes,
                photo.split or self.store.get("splits", inspection.sha256),
            )
            for photo, inspection in inspected
        ]
        places = assign(fingerprints, self.plan.val, self.plan.test, self.plan.near)
        alike: dict[int, list[str]] = defaultdict(list)
        for (photo, _), place in zip(inspected, places, strict=True):
            alike[place.group].append(photo.name)
        self.outcome.alike = [names for names in alike.values() if len(names) > 1]
        kept = []
        for (photo, inspection), fingerprint, place in zip(
            inspected, fingerprints, places, strict=True
        ):
            if place.clashes_with is not None:
                other = inspected[place.clashes_with].photo.name
                detail = f"stated as {fingerprint.stated}, looks like {other} of {place.split}"
                self.aside(photo, "near-duplicate across splits", detail)
                continue
            if photo.split is None and fingerprint.stated != place.split:
                self.store.put("splits", fingerprint.sha256, place.split)
            decided: dict[str, Any] = {"split": place.split}
            if len(alike[place.group]) > 1:
                decided["group"] = fingerprints[place.group].sha256[:12]
            kept.append(_Placed(photo, inspection, decided))
        return kept

    def write(self, placed: Sequence[_Placed]) -> list[Row]:
        """Write pictures, masks and cut-outs that are not there yet; return all rows."""
        writer = Writer(self.out, self.plan.write_options, self.inspector)

        def rows_of(one: _Placed) -> list[Row]:
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
                    self.aside(photo, "unlabelled person", detail)
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
        """``work`` on all entries in threads; the outcome lists what fails."""

        def failed(entry: Any, reason: str) -> None:
            self.outcome.failed.append(Aside(photo_of(entry).name, doing, reason))

        return in_threads(doing, work, entries, failed, self.plan.workers, self.quiet)


def _kind(photo: Photo) -> str:
    if photo.shows_nobody:
        return "nobody"
    return "label" if photo.mask == "label" else "file"


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
