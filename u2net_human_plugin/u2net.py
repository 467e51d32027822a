"""The U²-Net architecture in PyTorch: full (44.0 M parameters), wide (6.7 M) and lite (1.13 M).

Written from the structure in Qin et al., "U²-Net: Going Deeper with Nested
U-Structure for Salient Object Detection", Pattern Recognition 106 (2020),
arXiv:2005.09007 (figures 2 and 5, table 1). The attribute names are those of the
authors' published checkpoints, so that official ``.pth`` files load strictly. ``wide`` is
ours: the lite network with wider deep stages.

One building block, the residual U-block (RSU), is repeated at every stage: six
encoder stages, five decoder stages, and one single-channel *side output* per
decoder depth. ``d1`` has the input's resolution, ``d2`` half of it, and so on;
``d0`` is a learned fusion of all six.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Variant = Literal["full", "wide", "lite"]
Decoder = Literal["full", "half"]


class Stage(NamedTuple):
    """One RSU: number of levels, channels in, inside and out, and whether it is dilated."""

    height: int
    inputs: int
    middle: int
    outputs: int
    dilated: bool = False


#: The variants, stage by stage: "full" and "lite" are table 1 of the paper, "wide" keeps lite's
#: shallow stages, where the arithmetic is, and widens the deep ones, whose small maps cost
#: little. A dilated stage keeps its resolution (its maps are already 20x20 or 10x10 for a
#: 320x320 input) and widens its view by dilation instead.
STAGES: dict[Variant, dict[str, Stage]] = {
    "full": {
        "stage1": Stage(7, 3, 32, 64),
        "stage2": Stage(6, 64, 32, 128),
        "stage3": Stage(5, 128, 64, 256),
        "stage4": Stage(4, 256, 128, 512),
        "stage5": Stage(4, 512, 256, 512, dilated=True),
        "stage6": Stage(4, 512, 256, 512, dilated=True),
        "stage5d": Stage(4, 1024, 256, 512, dilated=True),
        "stage4d": Stage(4, 1024, 128, 256),
        "stage3d": Stage(5, 512, 64, 128),
        "stage2d": Stage(6, 256, 32, 64),
        "stage1d": Stage(7, 128, 16, 64),
    },
    "wide": {
        "stage1": Stage(7, 3, 16, 64),
        "stage2": Stage(6, 64, 16, 64),
        "stage3": Stage(5, 64, 32, 64),
        "stage4": Stage(4, 64, 64, 128),
        "stage5": Stage(4, 128, 96, 192, dilated=True),
        "stage6": Stage(4, 192, 96, 192, dilated=True),
        "stage5d": Stage(4, 384, 96, 192, dilated=True),
        "stage4d": Stage(4, 320, 64, 128),
        "stage3d": Stage(5, 192, 32, 64),
        "stage2d": Stage(6, 128, 16, 64),
        "stage1d": Stage(7, 128, 16, 64),
    },
    "lite": {
        "stage1": Stage(7, 3, 16, 64),
        "stage2": Stage(6, 64, 16, 64),
        "stage3": Stage(5, 64, 16, 64),
        "stage4": Stage(4, 64, 16, 64),
        "stage5": Stage(4, 64, 16, 64, dilated=True),
        "stage6": Stage(4, 64, 16, 64, dilated=True),
        "stage5d": Stage(4, 128, 16, 64, dilated=True),
        "stage4d": Stage(4, 128, 16, 64),
        "stage3d": Stage(5, 128, 16, 64),
        "stage2d": Stage(6, 128, 16, 64),
        "stage1d": Stage(7, 128, 16, 64),
    },
}

#: What the half decoder leaves out: the parts that work at the input's full resolution.
FULL_RESOLUTION_PARTS = ("stage1d", "side1", "outconv")


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """Bilinear resize of ``x`` (N,C,h,w) to the height and width of ``reference``.

    A whole factor is passed as a factor: with a dynamic batch, ONNX then holds it as a
    constant, where a target size would have to be put together from the batch size at
    run time. Pooling rounds up, so inputs that are no multiple of 32 need the size.
    """
    height, width = reference.shape[2:]
    # While torch.jit traces, sizes are tensors: float makes them numbers again.
    rows, columns = float(height / x.shape[2]), float(width / x.shape[3])
    if rows.is_integer() and columns.is_integer():
        return F.interpolate(x, scale_factor=(rows, columns), mode="bilinear")
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


class ConvBlock(nn.Module):
    """3x3 convolution, batch normalisation, ReLU: (N,in,H,W) → (N,out,H,W)."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        self.bn_s1: nn.Module = nn.BatchNorm2d(outputs)
        self.relu_s1 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu_s1(self.bn_s1(self.conv_s1(x)))
        return out


class ResidualUBlock(nn.Module):
    """RSU: a small U-Net inside a residual connection: (N,in,H,W) → (N,out,H,W)."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        height, middle = stage.height, stage.middle
        self.height, self.dilated = height, stage.dilated
        self.rebnconvin = ConvBlock(stage.inputs, stage.outputs)
        for level in range(1, height + 1):
            if stage.dilated:
                dilation = 2 ** (level - 1)
            else:
                dilation = 2 if level == height else 1
            inputs = stage.outputs if level == 1 else middle
            self.add_module(f"rebnconv{level}", ConvBlock(inputs, middle, dilation))
        for level in range(height - 1, 0, -1):
            dilation = 2 ** (level - 1) if stage.dilated else 1
            outputs = stage.outputs if level == 1 else middle
            self.add_module(f"rebnconv{level}d", ConvBlock(2 * middle, outputs, dilation))
        # Without parameters, hence without a place in the state dict.
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.rebnconvin(x)
        skips: list[Tensor] = []
        hidden = residual
        for level in range(1, self.height):
            hidden = self.get_submodule(f"rebnconv{level}")(hidden)
            skips.append(hidden)
            # The two deepest levels share one resolution.
            if not self.dilated and level < self.height - 1:
                hidden = self.pool(hidden)
        hidden = self.get_submodule(f"rebnconv{self.height}")(hidden)
        for level in range(self.height - 1, 0, -1):
            skip = skips.pop()
            if hidden.shape[2:] != skip.shape[2:]:
                hidden = resize_like(hidden, skip)
            hidden = self.get_submodule(f"rebnconv{level}d")(torch.cat((hidden, skip), 1))
        out: Tensor = hidden + residual
        return out


class SaliencyNetwork(nn.Module):
    """What training, ensembles and export need of a network.

    ``forward`` takes (N,3,H,W) float32, normalised as
    :func:`u2net_human_plugin.preprocess.normalize` does, and returns a list of *logits*, each
    (N,1,h,w), the first of which is the network's answer.
    """

    variant: str
    decoder: Decoder
    #: Side of the square input that the file with the weights fixes, in pixels; None, any.
    size: int | None = None
    #: The parts that the answer of an exported file, the half decoder's, does without.
    auxiliary: tuple[str, ...]

    def encoder(self) -> Iterator[nn.Parameter]:
        """The parameters that come first, up to the deepest features."""
        raise NotImplementedError


class U2Net(SaliencyNetwork):
    """U²-Net with single-channel outputs.

    ``forward`` takes (N,3,H,W) float32, normalised as
    :func:`u2net_human_plugin.preprocess.normalize` does, and returns *logits*
    (apply a sigmoid to get saliency in 0…1):

    - full decoder: ``[d0, d1, d2, d3, d4, d5, d6]``, each (N,1,H,W);
    - half decoder: ``[d2, d3, d4, d5, d6]``, each (N,1,H/2,W/2), rounded up.

    The first entry is the network's answer; the rest exist for deep supervision.
    The half decoder skips ``FULL_RESOLUTION_PARTS``, which cost 54 % of the lite
    network's arithmetic; they stay in the state dict, so that a checkpoint is
    complete whichever decoder trained it.
    """

    variant: Variant
    auxiliary = (*FULL_RESOLUTION_PARTS, "side3", "side4", "side5", "side6")

    def __init__(self, variant: Variant = "full", decoder: Decoder = "full") -> None:
        super().__init__()
        self.variant, self.decoder = variant, decoder
        stages = STAGES[variant]
        for name, stage in stages.items():
            self.add_module(name, ResidualUBlock(stage))
        for depth in range(1, 7):
            source = stages["stage6"] if depth == 6 else stages[f"stage{depth}d"]
            self.add_module(f"side{depth}", nn.Conv2d(source.outputs, 1, 3, padding=1))
        self.outconv = nn.Conv2d(6, 1, 1)
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        skips: list[Tensor] = []
        hidden = x
        for depth in range(1, 6):
            hidden = self.get_submodule(f"stage{depth}")(hidden)
            skips.append(hidden)
            hidden = self.pool(hidden)
        hidden = self.get_submodule("stage6")(hidden)

        deepest_first = [hidden]
        last = 1 if self.decoder == "full" else 2
        for depth in range(5, last - 1, -1):
            skip = skips[depth - 1]
            joined = torch.cat((resize_like(hidden, skip), skip), 1)
            hidden = self.get_submodule(f"stage{depth}d")(joined)
            deepest_first.append(hidden)

        features = deepest_first[::-1]
        sides = [
            self.get_submodule(f"side{depth}")(feature)
            for depth, feature in enumerate(features, start=last)
        ]
        outputs = [sides[0], *(resize_like(side, sides[0]) for side in sides[1:])]
        if self.decoder == "full":
            outputs.insert(0, self.outconv(torch.cat(outputs, 1)))
        return outputs

    def encoder(self) -> Iterator[nn.Parameter]:
        """The parameters of the six encoder stages."""
        for depth in range(1, 7):
            yield from self.get_submodule(f"stage{depth}").parameters()


class Member(NamedTuple):
    """One network of an :class:`Ensemble`: what it sees, and how much it counts."""

    network: SaliencyNetwork
    #: Side of its square input, in pixels.
    size: int
    weight: float
    #: Its logits are clipped to ±limit: who is sure of everything must not overrule the rest.
    limit: float = math.inf


class Ensemble(nn.Module):
    """The weighted sum of several networks' logits, each within its limit.

    Networks that err differently are right more often together (Lakshminarayanan et al.,
    "Simple and scalable predictive uncertainty estimation using deep ensembles", NeurIPS
    2017, arXiv:1612.01474). Weights that add up to one give the mean. A member with a limit
    decides where the others are unsure and is outvoted where they are not.

    ``forward`` takes (N,3,S,S) float32 as a :class:`U2Net` does, S being :attr:`size`, the
    largest of the members' sizes; each member sees it reduced to its own. Returns a list of
    one tensor, the logits, (N,1,h,w) as the member of that size has them.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.members = list(members)
        # So that its parameters are found, moved and saved.
        self.networks = nn.ModuleList(member.network for member in members)
        self.size: int | None = max(member.size for member in members)

    def forward(self, x: Tensor) -> list[Tensor]:
        answers = [
            (network(x if size == self.size else _reduced(x, size))[0], weight, limit)
            for network, size, weight, limit in self.members
        ]
        # Largest first: the others are enlarged to it.
        answers.sort(key=lambda answer: -answer[0].shape[-1])
        total = torch.zeros_like(answers[0][0])
        for logits, weight, limit in answers:
            logits = resize_like(logits, total)
            total = total + weight * (logits if limit == math.inf else logits.clamp(-limit, limit))
        return [total]


def _reduced(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True)


Net = TypeVar("Net", bound=nn.Module)


def fold_batch_norm(model: Net) -> Net:
    """Merge every batch normalisation into its convolution, in place, and return ``model``.

    The function the network computes in ``eval`` mode stays the same; afterwards it
    runs without normalisation layers. Used for inference, and for fine-tuning with
    frozen statistics, where it saves a pass over every feature map.
    """
    for block in model.modules():
        if isinstance(block, ConvBlock) and isinstance(block.bn_s1, nn.BatchNorm2d):
            training = block.training
            block.conv_s1 = nn.utils.fuse_conv_bn_eval(block.conv_s1.eval(), block.bn_s1.eval())
            block.conv_s1.requires_grad_(True)
            block.bn_s1 = nn.Identity()
            block.train(training)
    return model


def unfold_batch_norm(model: Net) -> Net:
    """Give every folded convolution an identity batch normalisation back, in place.

    The inverse of :func:`fold_batch_norm` as far as the state dict goes: the result
    has all official keys and computes the same function in ``eval`` mode.
    """
    for block in model.modules():
        if isinstance(block, ConvBlock) and isinstance(block.bn_s1, nn.Identity):
            norm = nn.BatchNorm2d(block.conv_s1.out_channels)
            # eval-mode output is (x - mean) / sqrt(var + eps) * weight + bias; this
            # choice of var makes the square root exactly one.
            nn.init.constant_(norm.running_var, 1.0 - norm.eps)  # type: ignore[arg-type]
            block.bn_s1 = norm.to(block.conv_s1.weight.device).train(block.training)
    return model
