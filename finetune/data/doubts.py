"""Doubts about a mask: it lacks a person, marks another place, or is inverted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net_human_plugin.boxes import Boxes, hull_xyxy, iou_xyxy

Binary = npt.NDArray[np.bool_]

#: The mask lacks a person if it covers less than this share of the person's box.
LABELLED = 0.35
#: A mask disagrees with the detector if its bounding box has a lower IoU with every person's.
AGREEING = 0.5
#: The doubts, as messages call them.
TITLES = {
    "inverted_mask": "white where nobody is",
    "nobody_detected": "nobody detected",
    "mask_disagrees": "detector disagrees",
    "unlabelled_person": "a person outside the mask",
}


def doubts(
    binary: Binary, seen: Boxes, covered: npt.NDArray[np.float32], searched: bool
) -> tuple[str, ...]:
    """The doubts about a mask.

    "inverted_mask": it covers more of the surroundings of the people, or of the picture's edge,
    than of the rest. If a detector has searched the picture: "nobody_detected": the mask shows
    somebody, but the detector saw nobody; "mask_disagrees": the mask covers another place or
    extent than the people who were seen.

    Shape:
        - binary: (H,W); seen: (N,4) boxes, xyxy in pixels; covered: (N,), the share of each
          that the mask covers.
    """
    if not binary.any():
        return ()
    if is_inverted(binary, seen):
        return ("inverted_mask",)
    if not searched:
        return ()
    if not len(seen):
        return ("nobody_detected",)
    labelled = seen[covered >= LABELLED]
    hulls = np.concatenate((labelled, hull_xyxy(labelled))) if len(labelled) else labelled
    agrees = iou_xyxy(bounding_box(binary), hulls).max(initial=0) >= AGREEING
    return () if agrees else ("mask_disagrees",)


def is_inverted(binary: Binary, seen: Boxes) -> bool:
    """Whether dark seems to mean person in this mask.

    A mask of people covers more of their boxes than of what surrounds them, and more of the
    picture's middle than of its edge, even if the edge cuts somebody off.
    """
    inside = np.zeros_like(binary)
    for left, top, right, bottom in seen.round().astype(int).clip(min=0).tolist():
        inside[top:bottom, left:right] = True
    if not inside.any() or inside.all():
        inside[:] = True
        inside[[0, -1]] = inside[:, [0, -1]] = False
    if inside.all() or not inside.any():
        return False
    around = float(binary[~inside].mean())
    return around > 0.5 and around > float(binary[inside].mean())


def covered_shares(binary: Binary, boxes: Boxes) -> npt.NDArray[np.float32]:
    """The share of each box that the mask covers: (H,W), (N,4) → (N,)."""
    corners = np.concatenate((np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])), axis=1).astype(int)
    shares = [binary[top:bottom, left:right].mean() for left, top, right, bottom in corners]
    return np.array(shares, np.float32)


def bounding_box(binary: Binary) -> Boxes:
    """The box, (1,4), around all that the mask covers."""
    return np.array([Image.fromarray(binary).getbbox()], np.float32)
