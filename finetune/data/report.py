"""What a run of `python -m finetune prepare` did, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files import write_text
from .doubts import TITLES
from .manifest import SPLITS
from .plan import Outcome, Plan

#: The report to read.
NAME = "report.md"
#: Names that are listed for each reason in Markdown; the JSON lists all.
_LISTED = 20


def write_report(outcome: Outcome, plan: Plan, out: Path) -> str:
    """Write ``report.json`` and ``report.md`` into ``out``; return the short summary."""
    content = report(outcome, plan, out)
    files = {
        "report.json": json.dumps(content, indent=1, ensure_ascii=False) + "\n",
        NAME: markdown(content),
    }
    for name, text in files.items():
        write_text(out / name, text)
    aside = "".join(f"\n  {count} × {reason}" for reason, count in content["reasons"].items())
    flags = Counter(flag for entry in content["flagged"] for flag in entry["flags"])
    doubts = ", ".join(f"{count} × {TITLES.get(flag, flag)}" for flag, count in flags.most_common())
    kept = f"{len(content['flagged'])} of the rows doubtful"
    return (
        f"{content['rows']} rows from {content['photos']} photos in {out} "
        f"({content['inspected']} newly looked at, {content['written']} newly written); "
        f"{len(content['aside'])} set aside{':' if aside else ''}{aside}\n"
        f"{f'{kept}: {doubts}; see {out / NAME}' if doubts else 'no doubtful masks'}"
    )


def doubtful_sources(outcome: Outcome, inverted: bool) -> list[str]:
    """Warnings about sources most of whose masks are doubtful, one line each.

    ``inverted`` is whether the masks were read with --invert.
    """
    lines = []
    for source, count in outcome.masks.items():
        found = outcome.doubts[source]
        white = found["inverted_mask"]
        elsewhere = found["mask_disagrees"] + found["nobody_detected"]
        if 2 * white > count:
            remedy = "without --invert" if inverted else "with --invert"
            lines.append(
                f"{white} of {count} masks of {source} are white where nobody is: run again "
                f"{remedy}, if white is not the person there."
            )
        elif 2 * elsewhere > count:
            lines.append(
                f"{elsewhere} of {count} masks of {source} are elsewhere than the people that the "
                "detector sees: do masks and pictures belong together, and are the masks of people?"
            )
    return lines


def report(outcome: Outcome, plan: Plan, out: Path) -> dict[str, Any]:
    """The whole report as JSON values."""
    rows = outcome.rows
    flagged = [
        {"image": str(row.image.relative_to(out)), "name": row.extra["origin"]["name"]}
        | {"split": row.split, "flags": row.extra["flags"]}
        for row in rows
        if row.extra.get("flags")
    ]
    return {
        "photos": outcome.photos,
        "rows": len(rows),
        "inspected": outcome.inspected,
        "written": outcome.written,
        "sources": {
            source: {split: _count(rows, source, split) for split in SPLITS}
            for source in dict.fromkeys(row.source for row in rows)
        },
        "licences": dict(Counter(row.licence or "none stated" for row in rows)),
        "empty_scenes": sum(row.is_scene for row in rows),
        "labelled_by": dict(
            Counter(row.extra["labelled_by"] for row in rows if "labelled_by" in row.extra)
        ),
        "reasons": dict(Counter(entry.reason for entry in outcome.aside).most_common()),
        "aside": [asdict(entry) for entry in outcome.aside],
        "failed": [asdict(entry) for entry in outcome.failed],
        "flagged": flagged,
        "alike": outcome.alike,
        "unreferenced": outcome.unreferenced,
        "settings": {
            "write_options": asdict(plan.write_options),
            "detector": plan.detector_id or "none: the masks' own regions",
            "labeler": plan.labeler.name if plan.labeler else None,
            "without_person": plan.without_person,
            "unlabelled_person": plan.unlabelled_person,
            "licences": plan.licences,
            "val": plan.val,
            "test": plan.test,
            "near": plan.near,
        },
    }


def markdown(content: dict[str, Any]) -> str:
    """The report as Markdown: counts, what was set aside and why, and what to look at."""
    flags = Counter(flag for entry in content["flagged"] for flag in entry["flags"])
    parts = [
        "# Report of `python -m finetune prepare`\n",
        f"{content['photos']} photos, {content['rows']} rows in the manifest, "
        f"{content['empty_scenes']} of them empty scenes; {len(content['aside'])} set aside, "
        f"{len(content['failed'])} failed.\n",
        "## Rows\n",
        _table(
            ("source", *SPLITS),
            ((source, *counts.values()) for source, counts in content["sources"].items()),
        ),
        _table(("licence", "rows"), content["licences"].items()),
    ]
    if content["labelled_by"]:
        parts.append(_table(("mask made by", "rows"), content["labelled_by"].items()))
    for title, entries in (("Set aside", content["aside"]), ("Failed", content["failed"])):
        if entries:
            parts.append(f"## {title}\n")
        for reason in dict.fromkeys(entry["reason"] for entry in entries):
            lines = [
                f"{entry['name']}" + (f": {entry['detail']}" if entry["detail"] else "")
                for entry in entries
                if entry["reason"] == reason
            ]
            parts += [f"### {reason} ({len(lines)})\n", _list(lines)]
    if flags:
        parts.append("## Doubtful masks, kept\n")
        for flag, count in flags.most_common():
            names = [entry["name"] for entry in content["flagged"] if flag in entry["flags"]]
            parts += [f"### {flag} ({count})\n", _list(names)]
    if content["alike"]:
        lines = [" · ".join(names) for names in content["alike"]]
        parts += [f"## Near-duplicates, kept together ({len(lines)} groups)\n", _list(lines)]
    if content["unreferenced"]:
        files = content["unreferenced"]
        parts += [f"## Files of earlier runs, not in the manifest ({len(files)})\n", _list(files)]
    return "\n".join(parts)


def _count(rows: Iterable[Any], source: str, split: str) -> int:
    return sum(row.source == source and row.split == split for row in rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(value) for value in line)} |\n" for line in lines)


def _list(lines: Sequence[str]) -> str:
    shown = [f"- {_cell(line)}\n" for line in lines[:_LISTED]]
    if len(lines) > _LISTED:
        shown.append(f"- … and {len(lines) - _LISTED} more, in report.json\n")
    return "".join(shown)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
