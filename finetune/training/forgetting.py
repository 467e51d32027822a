"""Fine-tuning without forgetting: a second head has to answer as another network does.

"Learning without forgetting" (Li and Hoiem, ECCV 2016, arXiv:1606.09282): from the features of the
network, the head has to predict the answer of the remembered weights to every training picture. It
is dropped at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor, nn

from u2net_human_plugin.u2net import SaliencyNetwork, U2Net

from ..files import TEMPORARY, file_sha256
from .bank import Bank, mapped
from .light import normalized

#: The learning rate of the head, as a multiple of the network's.
HEAD_LR_FACTOR = 10.0


class Remembering(nn.Module):
    """A U²-Net with a second head on the features of its finest side output.

    Shape:
        - Input: (N,3,H,W).
        - Output: the network's outputs, and the head's logits (N,1,h,w) of the size of the
          finest side output.
    """

    def __init__(self, network: U2Net) -> None:
        super().__init__()
        self.network = network
        finest = 1 if network.decoder == "full" else 2
        self._stage = f"stage{finest}d"
        side = network.get_submodule(f"side{finest}")
        assert isinstance(side, nn.Conv2d)
        self.head = nn.Conv2d(side.in_channels, 1, 3, padding=1)
        self.head.load_state_dict(side.state_dict())

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        features: list[Tensor] = []
        stage = self.network.get_submodule(self._stage)
        handle = stage.register_forward_hook(lambda _module, _input, out: features.append(out))
        try:
            outputs = self.network(x)
        finally:
            handle.remove()
        return outputs, self.head(features[0])


def memory_loss(logits: Tensor, before: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy of the head against the remembered answer.

    Args:
        logits: (N,1,h,w), resized to ``before``.
        before: (N,1,H,W) in 0…1.
        weight: (N,1,1,1) in 0…1; 0 does not count.

    Shape:
        - Output: scalar, the mean over all pictures.
    """
    resized = F.interpolate(
        logits.float(), size=before.shape[2:], mode="bilinear", align_corners=False
    )
    loss = F.binary_cross_entropy_with_logits(resized, before, reduction="none")
    return (loss * weight).mean()


@torch.inference_mode()
def with_answers(
    bank: Bank,
    network: SaliencyNetwork,
    weights: Path,
    size: int,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> Bank:
    """The bank with the answers of ``network`` to all its pictures, as its plane ``before``.

    They are kept beside the bank's arrays and found there the next time.

    Args:
        bank: not yet on a GPU.
        network: in ``eval`` mode.
        weights: its file.
        size: of its input, in pixels a side.
        device: to compute on.
        progress: called with the number of pictures that are done.
    """
    place = bank.folder / f"before-{file_sha256(weights)[:16]}-{size}.npy"
    with FileLock(bank.folder / ".lock"):
        if not place.is_file():
            count, side = len(bank.kinds), bank.side
            temporary = place.with_name(place.name + TEMPORARY)
            answers = np.lib.format.open_memmap(temporary, "w+", np.uint8, (count, 1, side, side))
            network.to(device)
            for first in range(0, count, 16):
                rgb = bank.planes["rgb"][first : first + 16].to(device).float() / 255
                smaller = F.interpolate(
                    rgb, (size, size), mode="bilinear", antialias=True, align_corners=False
                )
                logits = network(normalized(smaller.clamp(0, 1)))[0]
                alpha = torch.sigmoid(
                    F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
                )
                answers[first : first + 16] = (alpha * 255).round().byte().cpu().numpy()
                if progress is not None:
                    progress(min(first + 16, count))
            answers.flush()
            del answers
            os.replace(temporary, place)
    return replace(bank, planes={**bank.planes, "before": mapped(place)})
