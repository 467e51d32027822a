"""Fitting thresholds: what each value gains and costs, without running the network again.

The whole pipeline runs with each of many settings; that is cheap because the network's answers are
remembered. One threshold after the other is tried, while the others stay as they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from statistics import fmean, variance
from typing import Any, NamedTuple

import numpy as np

from u2net_human_plugin.errors import DataError, WeightsError
from u2net_human_plugin.network import Array, Network
from u2net_human_plugin.options import Options
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.settings import Settings

from ..data.manifest import Row
from ..data.pictures import load_image
from . import metrics
from .measure import is_empty_scene, left_open, truth_of

#: The values tried of each threshold.
GRID: Mapping[str, Sequence[float]] = {
    "haze": (0.01, 0.02, 0.03, 0.05, 0.1, 0.2),
    "sure": (0.9, 0.95, 0.975, 0.99, 0.995, 0.999),
    "floor": (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99),
    "small": (0.4, 0.5, 0.6, 0.7, 0.8),
    "margin": (0.1, 0.15, 0.25, 0.35, 0.5),
    "min_crop": (32, 64, 96, 128),
}
#: The default options; the environment is not asked.
_OPTIONS = Options()
#: Thresholds whose change needs no or few new answers of the network.
CHEAP = ("floor", "sure", "haze")
#: How many times all thresholds are tried at most.
PASSES = 3


class RememberingNetwork:
    """A network with other settings that remembers its answers.

    Args:
        network: the network that is asked.
        settings: the settings that the pipeline gets from it.
        answers: by the content of the network's input; several networks may share them. One
            takes 150 KB.
    """

    def __init__(self, network: Network, settings: Settings, answers: dict[bytes, Array]) -> None:
        self._network, self.settings, self._answers = network, settings, answers
        #: How many answers were asked for, whether remembered or not.
        self.looks = 0

    def __call__(self, batch: Array) -> Array:
        self.looks += len(batch)
        keys = [hashlib.blake2b(view.tobytes(), digest_size=16).digest() for view in batch]
        new = [number for number, key in enumerate(keys) if key not in self._answers]
        if new:
            for number, alpha in zip(new, self._network(batch[new]), strict=True):
                self._answers[keys[number]] = alpha.copy()  # not the whole batch's memory
        return np.stack([self._answers[key] for key in keys])


class Score(NamedTuple):
    """The scores of the mask of one picture."""

    #: Whether the picture is an empty scene.
    is_scene: bool
    #: Whether a scene is not left empty, or people are missed; :func:`.metrics.is_empty` and
    #: ``is_missed``.
    wrong: bool
    #: Of people, else NaN.
    iou: float
    boundary_iou: float
    #: How often the network was asked.
    looks: int

    @property
    def value(self) -> float:
        """The mean of IoU and Boundary IoU; of a scene 1 if it is left empty, else 0."""
        return float(not self.wrong) if self.is_scene else (self.iou + self.boundary_iou) / 2


class Trials:
    """Pictures, and their scores under each of the settings that were tried.

    Args:
        network: the network that is asked; about 150 KB are kept of each answer.
        rows: pictures with people, and empty scenes.
        workers: pictures in work at a time.
    """

    def __init__(self, network: Network, rows: Sequence[Row], workers: int = 1) -> None:
        self._network, self._rows, self._workers = network, rows, workers
        self._answers: list[dict[bytes, Array]] = [{} for _ in rows]
        self._scores: list[dict[Settings, Score]] = [{} for _ in rows]
        #: Why a picture could not be measured, by its number.
        self.failures: dict[int, str] = {}

    def run(self, candidates: Iterable[Settings], advance: Callable[[], None]) -> None:
        """Measure with those that are not known yet; call ``advance`` after each picture."""
        candidates = list(candidates)

        def work(number: int) -> None:
            wanted = [each for each in candidates if each not in self._scores[number]]
            if wanted and number not in self.failures:
                try:
                    self._measure(number, wanted)
                except Exception as error:  # noqa: BLE001 - one bad picture must not end the run
                    self.failures[number] = f"{self._rows[number].name}: {error}"
                    self._scores[number].clear()
            advance()

        with ThreadPoolExecutor(self._workers) as pool:
            list(pool.map(work, range(len(self._rows))))

    def scores(self, settings: Settings) -> list[Score]:
        """The scores of all pictures that could be measured, in the same order for all settings."""
        return [scores[settings] for scores in self._scores if settings in scores]

    def _measure(self, number: int, wanted: Sequence[Settings]) -> None:
        row, answers = self._rows[number], self._answers[number]
        image, truth = load_image(row), truth_of(row)
        open_ = left_open(row, truth)
        person, is_scene = metrics.binary(truth), is_empty_scene(row)
        if not is_scene and not person.any():
            return  # a mask that is no truth, as in `measure`
        known: dict[bytes, tuple[bool, float, float]] = {}  # many settings make the same mask
        for settings in wanted:
            network = RememberingNetwork(self._network, settings, answers)
            mask = np.asarray(HumanSegmenter(network=network, options=_OPTIONS).mask(image))
            if open_ is not None:
                mask = np.where(open_, truth, mask)
            key = hashlib.blake2b(mask.tobytes()).digest()
            if key in known:
                pass
            elif is_scene:
                known[key] = not metrics.is_empty(mask), math.nan, math.nan
            else:
                known[key] = (
                    metrics.is_missed(mask, person),
                    metrics.iou(mask, person),
                    metrics.boundary_iou(mask, person),
                )
            self._scores[number][settings] = Score(is_scene, *known[key], network.looks)


def summary(scores: Sequence[Score], scenes: float) -> dict[str, float]:
    """What settings gain and cost; ``scenes`` is the weight of empty scenes in "score"."""
    empty, people = _apart(scores)
    ghosts = sum(score.wrong for score in empty)
    return {
        "lost": sum(score.wrong for score in people),
        "ghosts": ghosts,
        "left_empty": 1 - ghosts / len(empty),
        "iou": fmean(score.iou for score in people),
        "boundary_iou": fmean(score.boundary_iou for score in people),
        "looks": fmean(score.looks for score in scores),
        "score": (1 - scenes) * fmean(score.value for score in people)
        + scenes * fmean(score.value for score in empty),
    }


def standard_error(one: Sequence[Score], other: Sequence[Score], scenes: float) -> float:
    """The standard error of the difference of two scores, paired by picture."""
    groups = zip(_apart(one), _apart(other), (scenes, 1 - scenes), strict=True)
    total = 0.0
    for first, second, weight in groups:
        differences = [a.value - b.value for a, b in zip(first, second, strict=True)]
        if len(differences) > 1:
            total += weight**2 * variance(differences) / len(differences)
    return math.sqrt(total)


def fit(
    trials: Trials,
    start: Settings,
    thresholds: Sequence[str],
    scenes: float,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Settings, dict[str, list[dict[str, Any]]]]:
    """The best settings, and a table for each threshold.

    One threshold after the other gets the value with the highest score. It keeps its present value
    if the best is not better by more than one standard error of the difference (the rule of Breiman
    et al., "Classification and Regression Trees", 1984). This is repeated until no threshold
    changes, at most :data:`PASSES` times.

    Returns:
        The settings; and by threshold a row for each value as it was tried last, with
        :func:`summary` and "standard_error" of the difference from the value before.

    Raises:
        DataError: there are no people or no empty scenes; thresholds trade one for the other.
    """
    chosen, tables = start, {}
    for _ in range(PASSES):
        before = chosen
        for name in thresholds:
            candidates = _candidates(chosen, name)
            trials.run(candidates, advance)
            rows = _table(name, {each: trials.scores(each) for each in candidates}, chosen, scenes)
            tables[name] = rows
            best = max(rows, key=lambda row: row["score"])
            present = next(row for row in rows if row["value"] == getattr(chosen, name))
            if best["score"] - present["score"] > best["standard_error"]:
                chosen = dataclasses.replace(chosen, **{name: best["value"]})
        if chosen == before:
            break
    return chosen, tables


def _table(
    name: str, found: Mapping[Settings, Sequence[Score]], present: Settings, scenes: float
) -> list[dict[str, Any]]:
    if not all(_apart(found[present])):
        raise DataError(
            "Thresholds trade lost people for ghosts in empty scenes: of both there must be held-"
            "back pictures that can be read, and of one kind there are none."
        )
    return [
        {
            "value": getattr(settings, name),
            **summary(scores, scenes),
            "standard_error": standard_error(scores, found[present], scenes),
        }
        for settings, scores in found.items()
    ]


def _candidates(settings: Settings, name: str) -> list[Settings]:
    """The possible settings with each value of the grid and the present one, ascending."""
    values = sorted({*GRID[name], getattr(settings, name)})
    tried = (_changed(settings, name, value) for value in values)
    return [changed for changed in tried if changed is not None]


def _changed(settings: Settings, name: str, value: float) -> Settings | None:
    change: dict[str, Any] = {name: value}
    with suppress(WeightsError):  # floor above sure
        return dataclasses.replace(settings, **change)
    return None


def _apart(scores: Sequence[Score]) -> tuple[list[Score], list[Score]]:
    """Empty scenes, and pictures of people."""
    return [s for s in scores if s.is_scene], [s for s in scores if not s.is_scene]
