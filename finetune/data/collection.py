"""From candidates to a training set: look at each, decide, write what stays.

The result depends on the candidates and the plan alone. What was found out and written
before is kept in ``.prepare`` and not done again, whatever else is added.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from ..files import TEMPORARY, only_run
from ..store import Store
from .candidate import Candidate
from .finding import Finding
from .inspection import Inspector
from .manifest import Row, write_manifest
from .near_duplicates import Member, assign
from .parallel import in_threads
from .plan import Aside, Outcome, Plan
from .samples import Writer, to_row

T = TypeVar("T")

FOLDERS = ("images", "masks", "cutouts", "bystanders")
MANIFEST = "manifest.jsonl"
#: Which mask is kept of pictures that are there twice.
_TRUST = {"file": 0, "nobody": 1, "label": 2}


@dataclass(frozen=True)
class _Item:
    candidate: Candidate
    finding: Finding


def collect(candidates: Sequence[Candidate], out: Path, plan: Plan, quiet: bool = False) -> Outcome:
    """Build the training set in ``out``; its manifest is replaced at the very end.

    Raises:
        DataError: another run is at work in ``out``, or its store is damaged.
        OSError: nothing can be written (any more); what was finished is kept.
    """
    state = out / ".prepare"
    for folder in (*(out / name for name in FOLDERS), state / "labels"):
        folder.mkdir(parents=True, exist_ok=True)
    with only_run(state, "prepare"), Store(state / "progress.sqlite") as store:
        for leftover in _files(out, (*FOLDERS, ".prepare/labels", "."), f".*{TEMPORARY}"):
            leftover.unlink()
        outcome = Outcome(candidates=len(candidates))
        run = _Run(out, plan, outcome, store, quiet)
        items = run.without_copies(run.usable(run.inspect(run.admissible(candidates))))
        rows = run.write(run.into_splits(items))
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

    def aside(self, candidate: Candidate, reason: str, detail: str = "") -> None:
        self.outcome.aside.append(Aside(candidate.name, reason, detail))

    def admissible(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Those of the asked licences in which the readers saw no problem."""
        patterns = [pattern.casefold() for pattern in self.plan.licences]
        for candidate in candidates:
            licence = candidate.licence.casefold()
            if candidate.problem:
                self.aside(candidate, "unusable pair", candidate.problem)
            elif patterns and not any(fnmatch(licence, pattern) for pattern in patterns):
                self.aside(candidate, "other licence", candidate.licence or "none stated")
            else:
                yield candidate

    def inspect(self, candidates: Iterable[Candidate]) -> list[_Item]:
        """Look at every candidate, or take what was found earlier."""
        inspector = self.inspector

        def look(candidate: Candidate) -> _Item:
            try:
                key = inspector.key(candidate)
            except OSError as error:
                return _Item(candidate, Finding("", reason="unreadable", detail=str(error)))
            known = self.store.get("inspections", key)
            if known is not None and _label_is_there(inspector, candidate, known):
                return _Item(candidate, Finding.from_json(known))
            finding = inspector.inspect(candidate, key)
            self.store.put("inspections", key, finding.to_json())
            self.outcome.inspected += 1
            return _Item(candidate, finding)

        return self._each("looking at pictures", look, list(candidates), lambda entry: entry)

    def usable(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Those whose finding is good enough for the plan."""
        for item in items:
            candidate, finding = item.candidate, item.finding
            found_empty = not finding.people and not candidate.shows_nobody
            if finding.reason:
                self.aside(candidate, finding.reason, finding.detail)
                continue
            if not candidate.shows_nobody:
                self.outcome.masks[candidate.source] += 1
                doubts = self.outcome.doubts.setdefault(candidate.source, Counter())
                doubts.update(finding.flags)
            if found_empty and self.plan.without_person == "reject":
                self.aside(candidate, "nobody in it", "asked for by --without-person reject")
            else:
                yield item

    def without_copies(self, items: Iterable[_Item]) -> list[_Item]:
        """One item of each picture file, that of test before train, the surest mask first."""

        def worth(item: _Item) -> tuple[int, int]:
            split = {"test": 0, "val": 1}.get(item.candidate.split or "", 2)
            return split, _TRUST[_kind(item.candidate)]

        items = list(items)
        best: dict[str, _Item] = {}
        for item in sorted(items, key=worth):
            best.setdefault(item.finding.sha256, item)
        kept = []
        for item in items:
            holder = best[item.finding.sha256]
            if holder is item:
                kept.append(item)
            else:
                self.aside(item.candidate, "same file", f"as {holder.candidate.name}")
        return kept

    def into_splits(self, items: Sequence[_Item]) -> list[tuple[_Item, dict[str, Any]]]:
        """Items with "split" and, where others look alike, "group"; without those that clash."""
        members = [
            Member(
                item.finding.sha256,
                item.finding.hashes,
                item.candidate.split or self.store.get("splits", item.finding.sha256),
            )
            for item in items
        ]
        places = assign(members, self.plan.val, self.plan.test, self.plan.near)
        sizes: dict[int, list[str]] = defaultdict(list)
        for item, place in zip(items, places, strict=True):
            sizes[place.group].append(item.candidate.name)
        self.outcome.alike = [names for names in sizes.values() if len(names) > 1]
        kept = []
        for item, member, place in zip(items, members, places, strict=True):
            if place.clashes_with is not None:
                other = items[place.clashes_with].candidate.name
                detail = f"stated as {member.stated}, looks like {other} of {place.split}"
                self.aside(item.candidate, "near-duplicate across splits", detail)
                continue
            if item.candidate.split is None and member.stated != place.split:
                self.store.put("splits", member.sha256, place.split)
            decided: dict[str, Any] = {"split": place.split}
            if len(sizes[place.group]) > 1:
                decided["group"] = members[place.group].sha256[:12]
            kept.append((item, decided))
        return kept

    def write(self, decided: Sequence[tuple[_Item, dict[str, Any]]]) -> list[Row]:
        """Write pictures, masks and cut-outs that are not there yet; return all rows."""
        writer = Writer(self.out, self.plan.look, self.inspector)

        def samples(entry: tuple[_Item, dict[str, Any]]) -> list[Row]:
            (candidate, finding), extra = (entry[0].candidate, entry[0].finding), entry[1]
            key = self.plan.look.key(finding)
            known = self.store.get("written", key)
            if known is None or not all(_is_there(content, self.out) for content in known):
                known = writer.write(candidate, finding)
                self.store.put("written", key, known)
                self.outcome.written += 1
            about = {"source": candidate.source, "licence": candidate.licence} | extra
            about["origin"] = {"name": candidate.name, "sha256": finding.sha256}
            searched = self.inspector.searches(candidate)
            about["detector"] = self.plan.detector_id if searched else None
            if finding.labelled_by:
                about["labelled_by"] = finding.labelled_by
            about |= candidate.extra
            rows = []
            for content in known:
                doubtful = "unlabelled_person" in content.get("flags", ())
                if doubtful and self.plan.unlabelled_person == "aside":
                    detail = f"a clear person outside the mask, in {content['image']}"
                    self.aside(candidate, "unlabelled person", detail)
                else:
                    rows.append(to_row(content, self.out, about))
            return rows

        written = self._each("writing samples", samples, decided, lambda entry: entry[0].candidate)
        return [row for rows in written for row in rows]

    def _each(
        self,
        doing: str,
        work: Callable[[Any], T],
        entries: Sequence[Any],
        candidate_of: Callable[[Any], Candidate],
    ) -> list[T]:
        """``work`` on all entries in threads; what fails goes to the outcome."""

        def failed(entry: Any, reason: str) -> None:
            self.outcome.failed.append(Aside(candidate_of(entry).name, doing, reason))

        return in_threads(doing, work, entries, failed, self.plan.workers, self.quiet)


def _kind(candidate: Candidate) -> str:
    if candidate.shows_nobody:
        return "nobody"
    return "label" if candidate.mask == "label" else "file"


def _label_is_there(inspector: Inspector, candidate: Candidate, known: dict[str, Any]) -> bool:
    made = candidate.mask == "label" and known.get("labelled_by")
    return not made or (inspector.labels / f"{known['key']}.png").is_file()


def _is_there(content: dict[str, Any], out: Path) -> bool:
    files = (content.get(name) for name in ("image", "mask", "cutout", "bystanders"))
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
