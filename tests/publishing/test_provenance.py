"""Provenance: flat records, each once, parents by id, and nothing lost on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from u2net_human_plugin import weights
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.publishing.provenance import (
    PROVENANCE,
    flat,
    read_provenance,
    training_runs,
)

CHECKOUT = Path(__file__).resolve().parents[2]
FIRST = {"arguments": {"init": "u2netp.onnx"}, "steps": 10}
SECOND = {"arguments": {"init": "runs/first.pth"}, "steps": 20, "started_from": FIRST}
OTHER = {"arguments": {"init": "runs/first.pth"}, "steps": 30, "started_from": FIRST}
MIXED = {
    **SECOND,
    "averaged": [
        {"before": "kept/first.pth", "share": 0.5, "temperature": 1.0},
        {"before": "runs/other.pth", "share": 0.25, "temperature": 1.0, "training": OTHER},
    ],
}


def exported(training):
    return {"made_from": "last.pth", "sha256": {"onnx": "0a11"}, "training": training}


def parents(records, name):
    return [records[parent["id"]] for parent in records[name]["parents"]]


def test_each_run_comes_once_oldest_first():
    """The first run led here by two ways."""
    records = flat(exported(MIXED))
    assert [run["steps"] for run in training_runs(records)] == [10, 20, 30]
    assert not any({"training", "started_from", "averaged"} & set(r) for r in records.values())


def test_an_average_has_two_parents_of_which_the_second_weighs_its_share():
    """Steps follow one another; what `average` leaves out is the run's own start."""
    records = flat(exported(MIXED))
    ((last,), (bundled, *rest)) = ([parents(records, weights.MODEL_NAME)[0]], records.values())
    assert bundled["steps"] == 10
    assert rest[-1]["sha256"] == {"onnx": "0a11"}
    assert last["share"] == 0.25
    other, before_last = (records[parent["id"]] for parent in last["parents"])
    assert other["steps"] == 30
    assert before_last["share"] == 0.5
    first, second = (records[parent["id"]] for parent in before_last["parents"])
    assert (first["steps"], second["steps"]) == (10, 20)


def test_members_of_an_ensemble_are_parents_with_their_weights():
    """One whose making is not known is a file's name."""
    members = [
        {"file": "runs/a.pth", "variant": "wide", "size": 384, "weight": 1.5, "training": SECOND},
        {"file": "u2netp.onnx", "variant": "lite", "size": 320, "weight": 1.0, "training": None},
    ]
    records = flat(exported({"ensemble_of": members}))
    (ensemble,) = parents(records, weights.MODEL_NAME)
    one, other = ensemble["parents"]
    assert (one["size"], one["weight"], records[one["id"]]["steps"]) == (384, 1.5, 20)
    assert records[other["id"]] == {"file": "u2netp.onnx", "parents": []}
    assert one["id"].startswith("a-")


def test_official_weights_have_no_runs():
    """The file's name is all there is."""
    records = flat(exported(None))
    assert training_runs(records) == []
    assert parents(records, weights.MODEL_NAME) == [{"file": "last.pth", "parents": []}]


def test_a_file_of_other_weights_is_refused(tmp_path):
    """As is one that is no provenance."""
    (tmp_path / PROVENANCE).parent.mkdir()
    (tmp_path / PROVENANCE).write_text(json.dumps(flat(exported(MIXED))))
    assert len(training_runs(read_provenance(tmp_path, "0a11"))) == 3
    with pytest.raises(DataError, match="SHA-256 0a11, but the bundled ones have ffff"):
        read_provenance(tmp_path, "ffff")
    (tmp_path / PROVENANCE).write_text(json.dumps(exported(MIXED)))
    with pytest.raises(DataError, match="not what `export --bundle` writes"):
        read_provenance(tmp_path, "0a11")


@pytest.mark.skipif(not (CHECKOUT / PROVENANCE).is_file(), reason="needs the checkout")
def test_the_committed_one_is_whole():
    """It tells of the bundled file, and every parent stands before its children."""
    checksum = weights.bundled().sha256
    assert checksum is not None
    seen: set[str] = set()
    for name, record in read_provenance(CHECKOUT, checksum).items():
        assert {parent["id"] for parent in record["parents"]} <= seen
        seen.add(name)
    assert name == weights.MODEL_NAME
