"""Which photos a training set takes, and which split each gets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, NamedTuple

from ..store import Store
from .inspection import Inspection
from .near_duplicates import Fingerprint, assign
from .photo import Photo
from .plan import Outcome, Plan

#: Of a picture that is there twice, the mask with the lower number is kept.
_TRUST = {"file": 0, "nobody": 1, "label": 2}


class Inspected(NamedTuple):
    """A photo and what was found out about it."""

    photo: Photo
    inspection: Inspection


class Placed(NamedTuple):
    """A photo to write, with the split and group that its rows state."""

    photo: Photo
    inspection: Inspection
    decided: dict[str, Any]


@dataclass(frozen=True)
class Selection:
    """The steps by which a run chooses photos; the outcome lists those that are set aside."""

    plan: Plan
    outcome: Outcome
    #: Keeps the split of each photo between runs.
    store: Store

    def admissible(self, photos: Iterable[Photo]) -> Iterator[Photo]:
        """The photos that have no known problem and a licence that the plan takes."""
        patterns = [pattern.casefold() for pattern in self.plan.licences]
        for photo in photos:
            licence = photo.licence.casefold()
            if photo.problem:
                self.outcome.set_aside(photo, "unusable pair", photo.problem)
            elif patterns and not any(fnmatch(licence, pattern) for pattern in patterns):
                self.outcome.set_aside(photo, "other licence", photo.licence or "none stated")
            else:
                yield photo

    def usable(self, inspected: Iterable[Inspected]) -> Iterator[Inspected]:
        """The photos that can be used; those with nobody in them only if the plan takes these.

        The outcome counts the masks and the doubts about them.
        """
        for one in inspected:
            photo, inspection = one
            found_empty = not inspection.people and not photo.shows_nobody
            if inspection.reason:
                self.outcome.set_aside(photo, inspection.reason, inspection.detail)
                continue
            if not photo.shows_nobody:
                self.outcome.masks[photo.source] += 1
                doubts = self.outcome.doubts.setdefault(photo.source, Counter())
                doubts.update(inspection.flags)
            if found_empty and self.plan.without_person == "reject":
                self.outcome.set_aside(
                    photo, "nobody in it", "asked for by --without-person reject"
                )
            else:
                yield one

    def without_copies(self, inspected: Iterable[Inspected]) -> list[Inspected]:
        """Each picture file once: of copies, the one in test, else in val; else the surest mask."""

        def worth(one: Inspected) -> tuple[int, int]:
            split = {"test": 0, "val": 1}.get(one.photo.split or "", 2)
            return split, _TRUST[_kind(one.photo)]

        inspected = list(inspected)
        best: dict[str, Inspected] = {}
        for one in sorted(inspected, key=worth):
            best.setdefault(one.inspection.sha256, one)
        kept = []
        for one in inspected:
            holder = best[one.inspection.sha256]
            if holder is one:
                kept.append(one)
            else:
                self.outcome.set_aside(one.photo, "same file", f"as {holder.photo.name}")
        return kept

    def into_splits(self, inspected: Sequence[Inspected]) -> list[Placed]:
        """Each photo with its split and, if others look like it, the group of all of these.

        A photo is set aside if its stated split is not the one that its group gets.
        """
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
                self.outcome.set_aside(photo, "near-duplicate across splits", detail)
                continue
            if photo.split is None and fingerprint.stated != place.split:
                self.store.put("splits", fingerprint.sha256, place.split)
            decided: dict[str, Any] = {"split": place.split}
            if len(alike[place.group]) > 1:
                decided["group"] = fingerprints[place.group].sha256[:12]
            kept.append(Placed(photo, inspection, decided))
        return kept


def _kind(photo: Photo) -> str:
    if photo.shows_nobody:
        return "nobody"
    return "label" if photo.mask == "label" else "file"
