"""The exported ONNX file: its interface, its operations, its parity with torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from places import LITE

import u2net_human_plugin.finetune.publishing.onnx_file
from u2net_human_plugin.checkpoint import load_checkpoint
from u2net_human_plugin.finetune.publishing.onnx_file import PARITY, write_onnx
from u2net_human_plugin.network import OnnxNetwork
from u2net_human_plugin.preprocess import SIZE
from u2net_human_plugin.settings import Settings
from u2net_human_plugin.weights import WeightsFile


class OneConvolution(torch.nn.Module):
    """The smallest network of U²-Net's interface: quick to export."""

    size = None

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x):
        return [self.conv(x)]


@pytest.fixture(scope="module", params=["half", "full"])
def exported(request, tmp_path_factory):
    """The bundled network with either decoder: (model, path, difference)."""
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    model = load_checkpoint(LITE, request.param)
    return model, path, write_onnx(model, path)


def test_parity(exported):
    """The file gives torch's answer in onnxruntime, for a batch size not seen at export."""
    model, path, difference = exported
    assert difference <= PARITY
    images = np.random.default_rng(5).normal(size=(5, 3, SIZE, SIZE)).astype(np.float32)
    with torch.inference_mode():
        expected = torch.sigmoid(model(torch.from_numpy(images))[0])[:, 0].numpy()
    found = OnnxNetwork(WeightsFile(path, "given"))(images)
    np.testing.assert_allclose(found, expected, atol=PARITY)


def test_interface(exported):
    """One input (batch,3,SIZE,SIZE), one output (batch,1,h,w), the batch free."""
    model, path, _ = exported
    side = SIZE if model.decoder == "full" else SIZE // 2
    graph = onnx.load(path).graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"image": ["batch", 3, SIZE, SIZE], "alpha": ["batch", 1, side, side]}


def test_operations(exported):
    """The network's own arithmetic alone, normalisation folded, and casts of stored weights."""
    _, path, _ = exported
    graph = onnx.load(path).graph
    operations = {node.op_type for node in graph.node}
    assert operations == {"Cast", "Conv", "Relu", "Concat", "MaxPool", "Resize", "Add", "Sigmoid"}
    stored = {constant.name for constant in graph.initializer}
    assert all(node.input[0] in stored for node in graph.node if node.op_type == "Cast")


def test_no_notes(exported):
    """The file holds weights and little else: under 100 KB beside them, names of nodes."""
    _, path, _ = exported
    model = onnx.load(path)
    weights = sum(len(item.raw_data) for item in model.graph.initializer)
    assert path.stat().st_size < weights + 100_000
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_valid_and_alone(exported):
    """The file passes ONNX's own checker, and nothing else is left in its folder."""
    _, path, _ = exported
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert [file.name for file in path.parent.iterdir()] == ["net.onnx"]


def test_failed_parity_writes_nothing(tmp_path, monkeypatch):
    """An export that differs from torch raises and leaves the old file as it was."""
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the old file")
    monkeypatch.setattr(u2net_human_plugin.finetune.publishing.onnx_file, "PARITY", -1.0)
    with pytest.raises(RuntimeError, match=r"net\.onnx: .*differ"):
        write_onnx(OneConvolution(), path, Settings(size=64))
    assert path.read_bytes() == b"the old file"
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
