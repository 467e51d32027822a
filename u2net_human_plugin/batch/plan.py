"""Which file becomes which, and what is still to do. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any


def output_names(sources: Iterable[str], suffix: str, known: Mapping[str, str]) -> dict[str, str]:
    """A name in the destination for each source, no two the same, folders kept.

    ``a/b.jpg`` becomes ``a/b.png``. Where another picture would get the same name, both keep
    their whole one: ``a/b.jpg.png`` and ``a/b.tif.png``. Capital and small letters count
    as the same, as on many file systems. A source in ``known`` keeps the name it has there, so
    that a picture added later changes nobody's.
    """
    names = {source: name for source, name in known.items() if name.endswith(suffix)}
    new = [source for source in sources if source not in names]
    short = {source: str(PurePosixPath(source).with_suffix(suffix)) for source in new}
    whole: set[str] = set()
    while True:
        chosen = {s: s + suffix if s in whole else short[s] for s in new}
        wanted = Counter(name.casefold() for name in (*names.values(), *chosen.values()))
        clashing = {s for s in new if s not in whole and wanted[chosen[s].casefold()] > 1}
        if not clashing:
            return {**names, **chosen}
        whole |= clashing


def finished(
    rows: Iterable[Mapping[str, Any]], sha256: str | None, settings: str, there: set[str]
) -> set[str]:
    """The sources whose cut-out was made with these weights and settings and is ``there``."""
    return {
        row["source"]
        for row in rows
        if row["error"] is None
        and row["sha256"] == sha256
        and row["settings"] == settings
        and row["output"] in there
    }
