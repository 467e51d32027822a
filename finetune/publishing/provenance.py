"""How the bundled weights were made: ``model_cards/provenance.json``, flat.

It has one record for each set of weights that led to the bundled ones, oldest first, by an id. A
record names its parents by their ids:

    {"u2net_wide-1f0c2a9b": {"arguments": {…}, "steps": 2482, …, "parents": []},
     "u2net_human_ft": {"sha256": {…}, …, "parents": [{"id": "u2net_wide-1f0c2a9b", …}]}}

A record with "arguments" is a training run. One with "share" is the average of two parents, of
which the second has this weight. The record of weights of unknown origin has the file's name only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.weights import MODEL_NAME

#: Below the checkout's root.
PROVENANCE = Path("model_cards/provenance.json")

Records = dict[str, dict[str, Any]]
#: Facts of an ensemble's member, kept with the parent's id.
_MEMBER = ("variant", "size", "weight", "limit")
_NESTED = ("started_from", "averaged", "ensemble_of", "training")


def flat(record: Mapping[str, Any]) -> Records:
    """The records that are nested in an export's record under "training", flat.

    A set of weights that is an ancestor in several ways comes once.
    """
    records: Records = {}
    made_from = _add(records, record.get("training"), record["made_from"])
    records[MODEL_NAME] = {**_own(record), "parents": [{"id": made_from}]}
    return records


def read_provenance(folder: Path, onnx_sha256: str) -> Records:
    """How the bundled weights were made, as `export --bundle` wrote it.

    Raises:
        DataError: it tells of other weights than the bundled ones, or is none.
    """
    path = folder / PROVENANCE
    try:
        records: Records = json.loads(path.read_text("utf-8"))
        found = records[MODEL_NAME]["sha256"]["onnx"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not what `export --bundle` writes ({error!r}).") from None
    if found != onnx_sha256:
        raise DataError(
            f"{path}: tells of weights with SHA-256 {found}, but the bundled ones have "
            f"{onnx_sha256}; run `python -m finetune export --bundle` again."
        )
    return records


def training_runs(records: Records) -> list[dict[str, Any]]:
    """The training runs that made the weights, first to last; none if they are not fine-tuned."""
    return [record for record in records.values() if "arguments" in record]


def _own(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in _NESTED}


def _add(records: Records, record: Mapping[str, Any] | None, file: str) -> str:
    """Add a record and its ancestors, these first; return its id."""
    if not record:
        return _put(records, {"file": file, "parents": []}, file)
    if "ensemble_of" in record:
        return _put(records, {**_own(record), "parents": _members(records, record)}, file)
    parents: list[dict[str, Any]] = []
    start = str(record.get("arguments", {}).get("init"))
    if earlier := record.get("started_from"):
        parents = [{"id": _add(records, earlier, start)}]
    added = _put(records, {**_own(record), "parents": parents}, file)
    for step in record.get("averaged", ()):
        if parents and "training" not in step and Path(step["before"]).name == Path(start).name:
            other = parents[0]["id"]  # `average` leaves out what the run says already
        else:
            other = _add(records, step.get("training"), step["before"])
        pair = [{"id": other}, {"id": added}]
        added = _put(records, {**_own(step), "parents": pair}, file)
    return added


def _members(records: Records, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "id": _add(records, member.get("training"), member["file"]),
            **{key: member[key] for key in _MEMBER if key in member},
        }
        for member in record["ensemble_of"]
    ]


def _put(records: Records, record: dict[str, Any], file: str) -> str:
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:8]
    known = (name for name in records if name.endswith(f"-{digest}"))
    number = next(known, f"{Path(file).stem}-{digest}")
    records.setdefault(number, record)
    return number
