"""The network that starts from EfficientNet-Lite1: the same features, files, and its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from places import LITE
from torch import Tensor
from typer.testing import CliRunner

from u2net_human_plugin.checkpoint import load_checkpoint, load_network
from u2net_human_plugin.errors import WeightsError
from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.publishing.onnx_file import write_onnx
from u2net_human_plugin.network import OnnxNetwork, TorchNetwork
from u2net_human_plugin.preprocess import MEAN, STD
from u2net_human_plugin.semantic import SemanticNet, semantic_of
from u2net_human_plugin.weights import WeightsFile

#: Blocks, expansion, channels, kernel and stride of EfficientNet-Lite1: those of EfficientNet-B0
#: (table 1 of the paper), with 1.1 times the blocks where they repeat.
LITE1 = (
    (1, 1, 16, 3, 1),
    (3, 6, 24, 3, 2),
    (3, 6, 40, 5, 2),
    (4, 6, 80, 3, 2),
    (4, 6, 112, 5, 1),
    (5, 6, 192, 5, 2),
    (1, 6, 320, 3, 1),
)


def published(groups: tuple[tuple[int, ...], ...] = LITE1) -> dict[str, Tensor]:
    """A state dict with EfficientNet-PyTorch's names and random values."""
    random = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}

    def convolution(name: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        spread = (2 / (inputs * kernel * kernel)) ** 0.5
        shape = (outputs, inputs, kernel, kernel)
        state[f"{name}.weight"] = spread * torch.randn(shape, generator=random)
        for key, low in (("weight", 0.7), ("bias", -0.3), ("running_mean", -0.3)):
            state[f"{norm}.{key}"] = low + 0.6 * torch.rand(outputs, generator=random)
        state[f"{norm}.running_var"] = 0.5 + torch.rand(outputs, generator=random)

    convolution("_conv_stem", "_bn0", 32, 3, 3)
    inputs = 32
    number = 0
    for repeats, expansion, outputs, kernel, _ in groups:
        for _ in range(repeats):
            block, middle = f"_blocks.{number}", inputs * expansion
            if expansion > 1:
                convolution(f"{block}._expand_conv", f"{block}._bn0", middle, inputs, 1)
            convolution(f"{block}._depthwise_conv", f"{block}._bn1", middle, 1, kernel)
            convolution(f"{block}._project_conv", f"{block}._bn2", outputs, middle, 1)
            inputs, number = outputs, number + 1
    return state


def features(state: dict[str, Tensor], colours: Tensor, beyond: Tensor) -> Tensor:
    """What EfficientNet-Lite1 makes of ``colours`` in -1…1, layer by layer.

    Beyond the picture's right and lower edge lies the colour ``beyond``.
    """

    def layer(x: Tensor, name: str, norm: str, stride: int, *, depthwise: bool = False) -> Tensor:
        weight = state[f"{name}.weight"]
        # TensorFlow's "SAME": what is odd is on the lower right.
        missing = 0 if name == "_conv_stem" else weight.shape[-1] - stride
        before = missing // 2
        x = F.pad(x, (before, missing - before) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] if depthwise else 1)
        norms = (state[f"{norm}.{key}"] for key in ("running_mean", "running_var"))
        return F.batch_norm(
            x, *norms, state[f"{norm}.weight"], state[f"{norm}.bias"], training=False, eps=1e-3
        )

    x = beyond[None].expand(1, 3, 257, 257).clone()
    x[..., :256, :256] = colours
    x = layer(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    number = 0
    for repeats, expansion, _, _, first in LITE1:
        for repeat in range(repeats):
            block, before = f"_blocks.{number}", x
            if expansion > 1:
                x = layer(x, f"{block}._expand_conv", f"{block}._bn0", 1).clamp(0, 6)
            stride = first if repeat == 0 else 1
            x = layer(x, f"{block}._depthwise_conv", f"{block}._bn1", stride, depthwise=True)
            x = layer(x.clamp(0, 6), f"{block}._project_conv", f"{block}._bn2", 1)
            x = x + before if repeat else x
            number += 1
    return x


def test_the_encoder_is_efficientnet() -> None:
    """Its deepest features are those that the published weights give.

    Only where the picture ends, EfficientNet sees grey, and ours sees the mean colour.
    """
    state = published()
    model = semantic_of(state).eval()
    colours = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(5))
    mean, deviation = (torch.from_numpy(values)[:, None, None] for values in (MEAN, STD))
    with torch.inference_mode():
        expected = features(state, 2 * colours - 1, 2 * mean - 1)
        hidden = F.relu6(model.stem((colours - mean) / deviation))
        for block in model.blocks:
            hidden = block(hidden)
    assert hidden.shape == expected.shape == (1, 320, 8, 8)
    torch.testing.assert_close(hidden, expected, rtol=1e-3, atol=1e-3)


def test_the_shape_of_its_answers() -> None:
    """A quarter of the picture's sides, at every level; 4.05 million parameters."""
    model = SemanticNet().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_052_307
    with torch.inference_mode():
        answers = model(torch.rand(2, 3, 64, 96))
    assert [tuple(answer.shape) for answer in answers] == [(2, 1, 16, 24)] * 3


def test_checkpoints_are_recognised(tmp_path: Path) -> None:
    """Its own, and where training starts, a published classifier; nothing else."""
    model = SemanticNet()
    torch.save(model.state_dict(), tmp_path / "own.pth")
    read = load_checkpoint(tmp_path / "own.pth")
    assert read.variant == "semantic"
    torch.testing.assert_close(read.state_dict(), model.state_dict())
    torch.save(published(), tmp_path / "classifier.pth")
    assert load_checkpoint(tmp_path / "classifier.pth", classifiers=True).variant == "semantic"
    with pytest.raises(WeightsError, match=r"not a U²-Net \(it holds _blocks"):
        load_checkpoint(tmp_path / "classifier.pth")
    torch.save(published(((1, 1, 16, 3, 1), (2, 6, 24, 3, 2))), tmp_path / "small.pth")
    with pytest.raises(WeightsError, match="an EfficientNet, but not Lite1"):
        load_checkpoint(tmp_path / "small.pth", classifiers=True)
    state = model.state_dict()
    del state["smooth8.weight"]
    torch.save(state, tmp_path / "damaged.pth")
    with pytest.raises(WeightsError, match="looks like a semantic network but does not fit"):
        load_checkpoint(tmp_path / "damaged.pth")


def test_one_file_beside_a_u2net(tmp_path: Path) -> None:
    """`ensemble` and `export` take it; both runtimes give the same alpha, the limit kept."""
    torch.manual_seed(4)
    model = semantic_of(published())
    with torch.no_grad():
        model.side4.bias.fill_(20)  # everywhere, up to the limit
    torch.save(model.state_dict(), tmp_path / "semantic.pth")
    command = ["ensemble", f"{LITE}?size=96", f"{tmp_path / 'semantic.pth'}?size=64&limit=3"]
    ended = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "both.pth")])
    assert ended.exit_code == 0, ended.output
    write_onnx(load_network(tmp_path / "both.pth"), tmp_path / "both.onnx")
    file = WeightsFile(tmp_path / "both.onnx", "given")
    members = load_network(file.path).members
    assert [(member.network.variant, member.limit) for member in members] == [
        ("lite", float("inf")),
        ("semantic", 3.0),
    ]
    batch = np.random.default_rng(2).normal(size=(2, 3, 96, 96)).astype(np.float32)
    by_torch = TorchNetwork(file)(batch)
    np.testing.assert_allclose(OnnxNetwork(file)(batch), by_torch, atol=1e-4)
    alone = TorchNetwork(WeightsFile(Path(LITE), "given"))(batch)
    logits, before = (np.log(a / (1 - a)) for a in (by_torch, alone))
    sure = np.abs(before) < 8  # where single precision can tell
    assert sure.any()
    np.testing.assert_allclose((logits - before)[sure], 3, atol=0.2)


def test_alone_it_is_a_network_like_any_other(tmp_path: Path) -> None:
    """Its .onnx comes back in torch without the coarser levels' sides, which it does not hold."""
    write_onnx(semantic_of(published()).eval(), tmp_path / "alone.onnx")
    file = WeightsFile(tmp_path / "alone.onnx", "given")
    batch = np.random.default_rng(3).normal(size=(1, 3, 384, 384)).astype(np.float32)
    np.testing.assert_allclose(OnnxNetwork(file)(batch), TorchNetwork(file)(batch), atol=1e-4)
