"""A network that takes red for people, as an ONNX file, and pictures for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from u2net_human_plugin.preprocess import MEAN, STD

SIDE = 64


def red_network(path: Path) -> Path:
    """Write a file whose alpha is the red of a picture that is somewhere fully green."""
    weight = np.zeros((1, 3, 2, 2), np.float32)
    weight[0, 0] = STD[0] / 4
    constants = [
        onnx.numpy_helper.from_array(weight, "weight"),
        onnx.numpy_helper.from_array(MEAN[:1].copy(), "bias"),
    ]
    image, alpha = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", planes, side, side])
        for name, planes, side in (("image", 3, SIDE), ("alpha", 1, SIDE // 2))
    )
    node = onnx.helper.make_node("Conv", ["image", "weight", "bias"], ["alpha"], strides=[2, 2])
    graph = onnx.helper.make_graph([node], "red", [image], [alpha], constants)
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def red_pictures(folder: Path, people: Sequence[float], scenes: Sequence[float]) -> Path:
    """A manifest of people who are so red, and of things as red that are nobody; held back.

    Each is a square over most of the picture. One test row names files that do not exist.
    """
    rows = []
    box = np.zeros((128, 128), np.uint8)
    box[20:108, 20:108] = 255
    Image.fromarray(box).save(folder / "mask.png")
    for number, (red, nobody) in enumerate(
        [*((red, False) for red in people), *((red, True) for red in scenes)]
    ):
        rgb = np.zeros((128, 128, 3), np.uint8)
        rgb[..., 0][box > 0], rgb[..., 1] = round(255 * red), 255
        Image.fromarray(rgb).save(folder / f"{number}.png")
        mask = None if nobody else "mask.png"
        rows.append({"image": f"{number}.png", "mask": mask, "source": "red", "split": "val"})
    rows.append({"image": "gone.png", "mask": "gone.png", "source": "red", "split": "test"})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest
