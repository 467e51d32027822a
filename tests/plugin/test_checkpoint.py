"""Reading checkpoints: official and own, ONNX and .pth, hostile and broken."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from u2net_human_plugin.checkpoint import load_checkpoint, load_network
from u2net_human_plugin.errors import WeightsError
from u2net_human_plugin.preprocess import SIZE
from u2net_human_plugin.u2net import U2Net, fold_batch_norm, unfold_batch_norm
from u2net_human_plugin.weights import bundled


class _CreatesFile:
    """Pickled, a call of ``Path.touch`` at load time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def same_weights(first: U2Net, second: U2Net) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_official_onnx_agrees_with_onnxruntime(official_onnx):
    """The official file read into torch gives onnxruntime's seven outputs within 1e-4."""
    import onnxruntime

    session = onnxruntime.InferenceSession(official_onnx, providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(0).normal(size=(1, 3, 320, 320)).astype(np.float32)
    expected = session.run(None, {session.get_inputs()[0].name: picture})
    with torch.inference_mode():
        model = load_checkpoint(official_onnx)
        found = model(torch.from_numpy(picture))
    assert model.size == 320  # the file fixes it
    assert len(found) == len(expected) == 7
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(torch.sigmoid(ours).numpy(), theirs, atol=1e-4)


def test_the_bundled_file_serves_torch_too():
    """Read without the package onnx, it gives onnxruntime's answer within 1e-4."""
    import onnxruntime

    session = onnxruntime.InferenceSession(bundled().read(), providers=["CPUExecutionProvider"])
    model = load_network(bundled().path)
    side = model.size or SIZE
    picture = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
    expected = session.run(None, {session.get_inputs()[0].name: picture})[0]
    with torch.inference_mode():
        found = torch.sigmoid(model(torch.from_numpy(picture))[0]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("variant", ["full", "lite"])
def test_pth_round_trip(variant, tmp_path):
    """A state dict saved as .pth comes back bit by bit, in eval mode, its variant recognised."""
    model = U2Net(variant)
    torch.save(model.state_dict(), tmp_path / "net.pth")
    loaded = load_checkpoint(tmp_path / "net.pth")
    assert loaded.variant == variant
    assert not loaded.training
    assert same_weights(model, loaded)


def wrapped_by_data_parallel(model: U2Net) -> object:
    return {f"module.{key}": value for key, value in model.state_dict().items()}


def training_checkpoint(model: U2Net) -> object:
    return {"model": model.state_dict(), "epoch": 3}


def folded(model: U2Net) -> object:
    return fold_batch_norm(model).state_dict()


@pytest.mark.parametrize("content", [wrapped_by_data_parallel, training_checkpoint, folded])
def test_other_forms_of_a_state_dict(content, tmp_path):
    """DataParallel's prefix, a training checkpoint and folded normalisation are understood."""
    model = U2Net("lite").eval()
    torch.save(content(model), tmp_path / "net.pth")
    assert same_weights(model, load_checkpoint(tmp_path / "net.pth"))


def test_decoder_is_chosen_at_load(tmp_path):
    """The same file serves both decoders."""
    torch.save(U2Net("lite").state_dict(), tmp_path / "net.pth")
    assert load_checkpoint(tmp_path / "net.pth", "half").decoder == "half"
    assert load_checkpoint(tmp_path / "net.pth").decoder == "full"


def test_onnx_to_pth_and_back(official_onnx, tmp_path):
    """The official ONNX file, unfolded and saved as .pth, computes the same after loading."""
    model = load_checkpoint(official_onnx)
    picture = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(picture)[0]
        torch.save(unfold_batch_norm(model).state_dict(), tmp_path / "net.pth")
        after = load_checkpoint(tmp_path / "net.pth")(picture)[0]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def unpickle(path: Path) -> object:
    return pickle.loads(path.read_bytes())  # noqa: S301 - to show that the trap works


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"model": evil}])
@pytest.mark.parametrize(
    ("save", "careless_load"),
    [
        (torch.save, lambda path: torch.load(path, weights_only=False)),
        (lambda evil, path: path.write_bytes(pickle.dumps(evil, protocol=2)), unpickle),
    ],
    ids=["torch file", "bare pickle"],
)
def test_code_in_a_pickle_is_refused_and_does_not_run(wrap, save, careless_load, tmp_path):
    """A checkpoint that would create a file when unpickled is refused, and creates none."""
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    save(wrap(_CreatesFile(mark)), path)
    with pytest.raises(WeightsError, match=r"evil\.pth"):
        load_checkpoint(path)
    assert not mark.exists()
    careless_load(path)
    assert mark.exists()


def missing(_path: Path) -> str:
    return "no such file"


def text(path: Path) -> str:
    path.write_text("weights")
    return "cannot be read"


def empty(path: Path) -> str:
    path.write_bytes(b"")
    return "cannot be read"


def truncated(path: Path) -> str:
    torch.save(U2Net("lite").state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    return "cannot be read"


def other_network(path: Path) -> str:
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    return "not a U²-Net"


def a_tensor(path: Path) -> str:
    torch.save(torch.zeros(3), path)
    return "holds a Tensor"


def incomplete(path: Path) -> str:
    state = U2Net("lite").state_dict()
    del state["outconv.bias"]
    torch.save(state, path)
    return r"lite network but does not fit.*outconv\.bias"


def wrong_shapes(path: Path) -> str:
    state = U2Net("lite").state_dict()
    state["side1.weight"] = torch.zeros(7, 64, 3, 3)
    torch.save(state, path)
    return r"does not fit.*side1\.weight"


def non_string_keys(path: Path) -> str:
    torch.save({1: torch.zeros(1)}, path)
    return "not a U²-Net"


@pytest.mark.parametrize(
    "make",
    [missing, text, empty, truncated, other_network, a_tensor, incomplete, wrong_shapes,
     non_string_keys],
)  # fmt: skip
def test_wrong_pth(make, tmp_path):
    """A wrong file is an error that names it, what it holds, and what was expected."""
    path = tmp_path / "file.pth"
    with pytest.raises(WeightsError, match=make(path)) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "expected a U²-Net state dict" in str(caught.value)


def test_wrong_onnx(tmp_path):
    """An ONNX file of another network, or no ONNX at all, is refused with its name."""
    path = tmp_path / "other.onnx"
    path.write_bytes(b"no protobuf, this")
    with pytest.raises(WeightsError, match=r"other\.onnx: not an ONNX file"):
        load_checkpoint(path)
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "relu", [value("x", 1, [1])], [value("y", 1, [1])])
    onnx.save(onnx.helper.make_model(graph), path)
    with pytest.raises(WeightsError, match=r"other\.onnx: .*0 convolutions"):
        load_checkpoint(path)
