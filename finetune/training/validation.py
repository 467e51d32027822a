"""Validation while training, on fixed samples of held-back pictures, at network size.

The sets are photos; composites of several people and small figures, rendered from held-back people
and scenes; and empty scenes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..evaluation.metrics import boundary_iou, iou, is_empty
from .dataset import Material, Mix, PeopleDataset

_SEED = 20201  # never changes, so that runs can be compared


@dataclass(frozen=True)
class ValidationSet:
    """Samples of a :class:`PeopleDataset`, rendered once and kept."""

    name: str
    pictures: list[dict[str, Tensor]]


def validation_sets(material: Material, count: int, size: int) -> list[ValidationSet]:
    """``count`` photos, ``count`` composites and half as many empty scenes, if there are any."""
    sets = []
    # Photos count up to their contours, coarse ones too: else errors at edges would not show.
    measured_at_edges = replace(material, coarse={})
    for name, mix, number in (
        ("photos", Mix(photo=1, group=0, scene=0, empty=0), count),
        ("composites", Mix(photo=0, group=0.3, scene=0.7, empty=0), count),
        ("empty", Mix(photo=0, group=0, scene=0, empty=1), (count + 1) // 2),
    ):
        source = measured_at_edges if name == "photos" else material
        dataset = PeopleDataset(source, size=size, seed=_SEED, mix=mix)
        if name == "photos":
            number = min(number, len(dataset.photos))
        if number and (name != "empty" or dataset.scenes):
            sets.append(ValidationSet(name, [dataset[index] for index in range(number)]))
    return sets


@torch.inference_mode()
def predict(model: nn.Module, picture: Mapping[str, Tensor], device: torch.device) -> Tensor:
    """Alpha (H,W) in 0…1 on the CPU; as in inference, logits are resized before the sigmoid."""
    logits = model(picture["image"][None].to(device))[0]
    size = picture["alpha"].shape[1:]
    resized = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
    return torch.sigmoid(resized)[0, 0].cpu()


def validate(model: nn.Module, sets: list[ValidationSet], device: torch.device) -> dict[str, float]:
    """Mean metrics by set, and ``score``, by which the best checkpoint is chosen.

    The score is the mean of IoU and Boundary IoU of photos and composites and the share of empty
    scenes left empty. Pixels of weight 0 do not count.
    """
    results: dict[str, float] = {}
    for validation_set in sets:
        values: dict[str, list[float]] = {"iou": [], "boundary_iou": [], "empty": []}
        for picture in validation_set.pictures:
            known = picture["weight"][0].numpy() > 0
            predicted = np.where(known, predict(model, picture, device).numpy(), 0)
            truth = np.where(known, picture["alpha"][0].numpy(), 0)
            if validation_set.name == "empty":
                values["empty"].append(float(is_empty(predicted)))
            else:
                values["iou"].append(iou(predicted, truth))
                values["boundary_iou"].append(boundary_iou(predicted, truth))
        for metric, numbers in values.items():
            if numbers:
                results[f"{validation_set.name}/{metric}"] = float(np.mean(numbers))
    results["score"] = float(np.mean(list(results.values())))
    return results
