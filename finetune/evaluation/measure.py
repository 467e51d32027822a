"""Measuring two models on the rows of a manifest: the scores of each picture."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from u2net_human_plugin.errors import DataError

from ..data.manifest import Row, read_manifest
from ..data.pictures import load_alpha, load_image, open_image
from ..data.splits import in_split
from ..files import file_sha256
from ..predictors import Predictor
from ..store import Store
from . import matting, metrics

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """The settings of a run, apart from the two models."""

    #: As given: a manifest or the folder that holds it.
    manifest: str
    split: str = "test"
    sources: tuple[str, ...] = ()
    #: How many pictures with people are also measured for visual consistency (five more passes
    #: each).
    consistency: int = 50
    #: The option ``crop`` of both models; None: the default, or what a model's own name says.
    crop: str | None = None
    #: Measure only so many pictures, evenly drawn from the split; None, all.
    limit: int | None = None
    #: How many pictures are in work at a time.
    workers: int = 1


def choose_rows(settings: Settings) -> list[Row]:
    """The rows of the split and the sources, without distractors.

    Raises:
        DataError: the manifest cannot be read, or there is no such row.
    """
    rows = [
        row
        for row in read_manifest(settings.manifest, check_files=False)
        if in_split(row, settings.split)
        and not row.is_distractor
        and (not settings.sources or row.source in settings.sources)
    ]
    if not rows:
        wanted = f"split {settings.split!r}" + "".join(f", source {s!r}" for s in settings.sources)
        raise DataError(f"{settings.manifest}: holds no picture of {wanted}.")
    return evenly(rows, settings.limit)


def evenly(values: Sequence[T], count: int | None) -> list[T]:
    """``count`` of the values at equal steps; all of them if there are fewer."""
    if count is None or count >= len(values):
        return list(values)
    return [values[index * len(values) // count] for index in range(count)]


def measure(
    rows: Sequence[Row],
    models: dict[str, Predictor],
    settings: Settings,
    store: Store | None = None,
) -> list[dict[str, Any]]:
    """The result of each row, in order: scores, or the "reason" it was set aside, or an "error".

    Results that are in ``store`` are taken from it; new ones are put there.
    """
    people = [index for index, row in enumerate(rows) if not is_empty_scene(row)]
    measured = set(evenly(people, settings.consistency))
    done = store.items("pictures") if store else {}

    def work(index: int) -> dict[str, Any]:
        place = {"row": index, "image": _name(rows[index], settings)}
        if str(index) in done:
            kept: dict[str, Any] = done[str(index)]
            return kept
        try:
            result = {**place, **_score(rows[index], models, index in measured)}
        except Exception as error:  # noqa: BLE001 - one bad picture must not end the run
            return {**place, "error": f"{type(error).__name__}: {error}"}
        if store:
            store.put("pictures", str(index), result)
        return result

    with ThreadPoolExecutor(settings.workers) as pool:
        return list(progress(pool.map(work, range(len(rows))), len(rows)))


def truth_of(row: Row) -> npt.NDArray[np.uint8]:
    """The true mask of a row's picture, (H,W) uint8, 255 = person; it may be soft."""
    return np.asarray(load_alpha(row))


def _score(row: Row, models: dict[str, Predictor], consistency: bool) -> dict[str, Any]:
    image, truth = load_image(row), truth_of(row)
    person = metrics.binary(truth)
    uncounted = left_open(row, truth)
    empty_scene = is_empty_scene(row)
    if not empty_scene and not person.any():
        return {"reason": "its mask is empty, but its row does not call it an empty scene"}
    if row.is_scene and row.has_unlabelled_person:
        return {"reason": "its row calls it an empty scene, but a detector saw somebody"}
    files = [row.image, *([row.mask] if isinstance(row.mask, Path) else [])]
    result: dict[str, Any] = {
        "sha256": " ".join(file_sha256(file) for file in files),
        "source": row.source,
        "empty_scene": empty_scene,
        # The largest person's, if the manifest states it; otherwise that of the whole mask.
        "height": row.extra.get("person_height") or _height(person),
        "area": float(person.mean()),
        "persons": row.extra.get("persons"),
        # `prepare`'s doubts about the mask; None if no detector has searched the picture.
        "flags": row.extra.get("flags", [] if row.was_searched else None),
    }
    unknown = matting.unknown_band(truth)
    for name, model in models.items():
        start = time.perf_counter()
        mask = model.segment(image)
        scores: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 4)}
        if uncounted is not None:
            mask = np.where(uncounted, truth, mask)
        scores["mae"] = metrics.mae(mask, truth)
        scores["haze"] = matting.haze(mask, unknown)
        if empty_scene:
            scores["empty"] = metrics.is_empty(mask)
        else:
            scores["missed"] = metrics.is_missed(mask, person)
            scores["iou"] = metrics.iou(mask, person)
            scores["boundary_iou"] = metrics.boundary_iou(mask, person)
            scores["boundary_accuracy"] = metrics.boundary_accuracy(mask, person)
            if matting.is_matte(truth):
                scores["sad"] = matting.sad(mask, truth, unknown)
                scores["mse"] = matting.mse(mask, truth, unknown)
                scores["grad"] = matting.gradient_error(mask, truth, unknown)
                scores["conn"] = matting.connectivity_error(mask, truth, unknown)
            if consistency:
                scores["consistency"] = metrics.visual_consistency(model.segment, image, mask)
        result[name] = scores
    return result


def left_open(row: Row, truth: npt.NDArray[np.uint8]) -> metrics.Binary | None:
    """Where a picture does not count: (H,W), the part of its trimap outside the mask."""
    if row.bystanders is None:
        return None
    trimap = np.asarray(open_image(row.bystanders, row.where).convert("L"))
    if trimap.shape != truth.shape:
        raise DataError(
            f"{row.bystanders}: its shape is {trimap.shape}, that of {row.name} {truth.shape}; run "
            "`python -m u2net_human_plugin.finetune prepare` or `complete` again."
        )
    left_open: metrics.Binary = (trimap > 0) & (truth == 0)
    return left_open


def is_empty_scene(row: Row) -> bool:
    """Whether the row states that nobody is in the picture."""
    return row.is_scene or row.extra.get("persons") == 0


def _height(person: metrics.Binary) -> float:
    rows = np.flatnonzero(person.any(axis=1))
    return float((rows[-1] - rows[0] + 1) / person.shape[0]) if rows.size else 0.0


def _name(row: Row, settings: Settings) -> str:
    folder = Path(settings.manifest)
    folder = (folder if folder.is_dir() else folder.parent).absolute()
    return (
        row.image.relative_to(folder) if row.image.is_relative_to(folder) else row.image
    ).as_posix()


def progress(results: Iterable[T], total: int) -> Iterator[T]:
    """Yield the same results, and show a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    yield from track(results, "measuring", total=total, console=Console(stderr=True))
