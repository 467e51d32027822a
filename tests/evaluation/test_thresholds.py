"""Thresholds fitted to weights: on pictures whose best threshold is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from red import red_network, red_pictures

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.data.manifest import read_manifest
from u2net_human_plugin.finetune.evaluation.thresholds import (
    GRID,
    RememberingNetwork,
    Score,
    Trials,
    fit,
    standard_error,
    summary,
)
from u2net_human_plugin.network import OnnxNetwork
from u2net_human_plugin.settings import Settings
from u2net_human_plugin.weights import WeightsFile


class Counting:
    """A network whose answer is its input's mean, and that counts what it is shown."""

    settings = Settings()

    def __init__(self):
        self.shown = 0

    def __call__(self, batch):
        self.shown += len(batch)
        return batch.mean(axis=1)


def test_a_look_is_asked_for_once():
    """In whatever batch it comes, and under whatever settings; every look asked for counts."""
    network, answers = Counting(), {}
    batch = np.random.default_rng(0).random((3, 3, 4, 4), np.float32)
    first = RememberingNetwork(network, Settings(), answers)
    np.testing.assert_array_equal(first(batch[:2]), batch[:2].mean(axis=1))
    second = RememberingNetwork(network, Settings(floor=0.5), answers)
    np.testing.assert_array_equal(second(batch[::-1]), batch[::-1].mean(axis=1))
    assert (network.shown, first.looks, second.looks) == (3, 2, 3)
    assert second.settings == Settings(floor=0.5)


def score(is_scene, wrong, iou=math.nan, boundary_iou=math.nan, looks=1):
    return Score(is_scene, wrong, iou, boundary_iou, looks)


def test_summary_and_standard_error_known_by_hand():
    """Scenes count a quarter; the error is that of paired differences, by kind of picture."""
    one = [score(True, False), score(True, True), score(False, False, 0.8, 0.6, 5)]
    found = summary(one, scenes=0.25)
    assert found == pytest.approx(
        {
            "lost": 0,
            "ghosts": 1,
            "left_empty": 0.5,
            "iou": 0.8,
            "boundary_iou": 0.6,
            "looks": 7 / 3,
            "score": 0.75 * 0.7 + 0.25 * 0.5,
        }
    )
    assert standard_error(one, one, 0.25) == 0
    # Differences of scenes: 0 and -1, whose variance is a half: 0.25 sqrt(0.5 / 2).
    other = [one[0], score(True, False), one[2]]
    assert standard_error(one, other, 0.25) == pytest.approx(0.125)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Alpha is red."""
    path = red_network(tmp_path_factory.mktemp("red") / "red.onnx")
    return OnnxNetwork(WeightsFile(path, "given"))


def trials(network, folder, people, scenes):
    rows = read_manifest(red_pictures(folder, people, scenes), check_files=False)
    return Trials(network, [row for row in rows if row.split == "val"])


def test_the_floor_comes_to_lie_between_things_and_people(network, tmp_path):
    """People at 0.85 and more, things at 0.6 and less: the first value between is taken."""
    tried = trials(network, tmp_path, [0.85, 0.87, 0.9, 0.92], [0.2, 0.4, 0.55, 0.6])
    chosen, tables = fit(tried, network.settings, ["floor"], scenes=0.25)
    assert not tried.failures
    assert chosen == Settings(size=64, floor=0.7)
    rows = {row["value"]: row for row in tables["floor"]}
    assert sorted(rows) == sorted(GRID["floor"])
    assert [(v, rows[v]["lost"], rows[v]["ghosts"]) for v in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)] == [
        (0.3, 0, 2),  # what is marked at 0.4 is below one half
        (0.5, 0, 2),
        (0.7, 0, 0),
        (0.8, 0, 0),
        (0.9, 2, 0),
        (0.95, 4, 0),
    ]
    assert rows[0.7]["iou"] > 0.95


def test_chance_changes_nothing(network, tmp_path):
    """One ghost less of four is within the error: the present value stays."""
    tried = trials(network, tmp_path, [1.0, 1.0, 1.0, 1.0], [0.2, 0.4, 0.5, 0.97])
    chosen, tables = fit(tried, network.settings, ["floor"], scenes=0.25)
    rows = {row["value"]: row for row in tables["floor"]}
    assert rows[0.975]["score"] > rows[0.95]["score"]
    assert chosen == network.settings


def test_values_that_cannot_be_are_not_tried(network, tmp_path):
    """No floor above what counts as sure."""
    tried = trials(network, tmp_path, [1.0], [0.2])
    _, tables = fit(tried, Settings(size=64, sure=0.96), ["floor"], scenes=0.25)
    assert max(row["value"] for row in tables["floor"]) == 0.95


def test_one_kind_of_pictures_is_not_enough(network, tmp_path):
    """Every threshold would go down, or up."""
    with pytest.raises(DataError, match="of both there must be held-back pictures"):
        fit(trials(network, tmp_path, [1.0], []), network.settings, ["floor"], scenes=0.25)
