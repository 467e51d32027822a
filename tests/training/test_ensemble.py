"""Several networks as one: the sum of their logits, as checkpoint, ONNX file and mask."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from places import LITE
from typer.testing import CliRunner

from u2net_human_plugin.checkpoint import load_checkpoint, load_network
from u2net_human_plugin.errors import WeightsError
from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.publishing.onnx_file import write_onnx
from u2net_human_plugin.network import OnnxNetwork, TorchNetwork
from u2net_human_plugin.u2net import Ensemble, U2Net
from u2net_human_plugin.weights import WeightsFile


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a lite network, a wide one of random weights, and what `ensemble` makes."""
    folder = tmp_path_factory.mktemp("ensemble")
    torch.manual_seed(1)
    shutil.copy(LITE, folder / "lite.pth")
    torch.save(U2Net("wide").state_dict(), folder / "wide.pth")
    command = ["ensemble", f"{folder / 'lite.pth'}?size=64&weight=0.25&limit=2"]
    command += [f"{folder / 'wide.pth'}?size=96&weight=0.75", "--out", str(folder / "mean.pth")]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 0, ended.output
    return folder


def test_the_answer_is_the_weighted_sum_of_logits(files):
    """A quarter of the lite network's, which sees 64 pixels and says at most 2, and the rest."""
    mean = load_network(files / "mean.pth")
    assert isinstance(mean, Ensemble)
    assert mean.size == 96
    picture = torch.rand(2, 3, 96, 96)
    lite, wide = (load_checkpoint(files / f"{name}.pth", "half") for name in ("lite", "wide"))
    with torch.inference_mode():
        small = F.interpolate(picture, (64, 64), mode="bilinear", antialias=True)
        first = F.interpolate(lite(small)[0], (48, 48), mode="bilinear")
        assert first.abs().max() > 2
        expected = 0.25 * first.clamp(-2, 2) + 0.75 * wide(picture)[0]
        torch.testing.assert_close(mean(picture)[0], expected, rtol=1e-4, atol=1e-4)


def test_one_file_for_both_runtimes(files):
    """Written as ONNX, it comes back in torch, and both give the same alphas."""
    path = files / "mean.onnx"
    write_onnx(load_network(files / "mean.pth"), path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    batch = np.random.default_rng(2).normal(size=(3, 3, 96, 96)).astype(np.float32)
    file = WeightsFile(path, "given")
    by_onnxruntime, by_torch = OnnxNetwork(file), TorchNetwork(file)
    assert by_onnxruntime.size == by_torch.size == 96
    np.testing.assert_allclose(by_onnxruntime(batch), by_torch(batch), atol=1e-4)
    traced = TorchNetwork(file, traced=True)
    np.testing.assert_allclose(traced(batch), by_torch(batch), atol=1e-4)


def test_the_record_names_the_members(files):
    """What each is, how much it counts, and how it was trained as far as is known."""
    members = json.loads((files / "mean.json").read_text("utf-8"))["ensemble_of"]
    assert [(m["variant"], m["size"], m["weight"]) for m in members] == [
        ("lite", 64, 0.25),
        ("wide", 96, 0.75),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{lite}"], "one network is no ensemble"),
        (["{lite}?size=100", "{lite}"], "multiple of 32"),
        (["{lite}?weight=-1", "{lite}"], "numbers above 0"),
        (["{lite}?sise=64", "{lite}"], "expected PATH"),
        (["gone.pth", "{lite}"], "gone.pth: no such file"),
    ],
)
def test_wrong_members_are_named(files, arguments, says, tmp_path):
    """One line each, and nothing is written."""
    command = ["ensemble", *(text.format(lite=files / "lite.pth") for text in arguments)]
    ended = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "mean.pth")])
    assert ended.exit_code == 1
    assert says in ended.output.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_a_damaged_ensemble_is_a_weights_error(files, tmp_path):
    """A member that lacks its size, or a parameter."""
    torch.save({"members": [{"model": {}}]}, tmp_path / "mean.pth")
    with pytest.raises(WeightsError, match="damaged ensemble"):
        load_network(tmp_path / "mean.pth")
    content = torch.load(files / "mean.pth", weights_only=True)
    del content["members"][1]["model"]["stage4.rebnconvin.conv_s1.weight"]
    torch.save(content, tmp_path / "mean.pth")
    with pytest.raises(WeightsError, match="looks like a wide"):
        load_network(tmp_path / "mean.pth")


def test_members_reject_being_trained_on(files):
    """`train --init` takes a member, not the ensemble."""
    with pytest.raises(WeightsError, match="not a U²-Net"):
        load_checkpoint(files / "mean.pth")


def test_a_limit_survives_the_files(files):
    """In the checkpoint and in the ONNX file's notes; no limit is none."""
    for name in ("mean.pth", "mean.onnx"):
        write_onnx(load_network(files / "mean.pth"), files / "mean.onnx")
        members = load_network(files / name).members
        assert [member.limit for member in members] == [2.0, float("inf")]
