"""A node for ComfyUI: copy this file to ComfyUI/custom_nodes/u2net_human.py and restart it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from PIL import Image

from u2net_human_plugin import HumanSegmenter


class HumanCutout:
    """IMAGE, float (B,H,W,3) in 0…1 → the people on black, and MASK, float (B,H,W), 1 = person."""

    CATEGORY = "mask"
    FUNCTION = "cut_out"
    RETURN_TYPES = ("IMAGE", "MASK")
    _segmenter: ClassVar[HumanSegmenter | None] = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "image": ("IMAGE",),
                "crop": (["self", "off"],),
                "persons": (["everyone", "largest", "center"],),
            }
        }

    def cut_out(
        self, image: torch.Tensor, crop: str, persons: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if HumanCutout._segmenter is None:  # loaded once, when a workflow first needs it
            HumanCutout._segmenter = HumanSegmenter()
        segmenter = HumanCutout._segmenter
        chosen = {"crop": crop, "persons": None if persons == "everyone" else persons}
        options = segmenter.options.updated(chosen)
        pictures = (image.clamp(0, 1) * 255).round().byte().cpu().numpy()
        alphas = [segmenter.alpha(Image.fromarray(one), options) for one in pictures]
        mask = torch.stack([torch.from_numpy(alpha) for alpha in alphas])
        return image * mask[..., None].to(image), mask


NODE_CLASS_MAPPINGS = {"HumanCutout": HumanCutout}
NODE_DISPLAY_NAME_MAPPINGS = {"HumanCutout": "Human cut-out (u2net_human_ft)"}
