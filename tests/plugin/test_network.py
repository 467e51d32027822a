"""Networks as callables: contract, sharing, both backends, threads."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from places import bundled_size

from u2net_human_plugin.device import network_for
from u2net_human_plugin.errors import BrokenExtraError, MissingExtraError, WeightsError
from u2net_human_plugin.network import OnnxNetwork, default_providers, load_onnx, load_torch
from u2net_human_plugin.weights import ENVIRONMENT_VARIABLE, WeightsFile, bundled, find_weights

#: Of the bundled network.
SIZE = bundled_size()


def batch(images: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(images, 3, SIZE, SIZE)).astype(np.float32)


def write_network(path, inputs=(("N", 3, 32, 32),), output=("N", 1, 32, 32), kind=None):
    """An ONNX file with these input and output shapes that runs when the shapes allow it."""
    kind = kind or TensorProto.FLOAT
    names = [f"input{number}" for number in range(len(inputs))]
    nodes = [
        helper.make_node("ReduceMax", [names[0], "axes"], ["mean"], keepdims=1),
        helper.make_node("Cast", ["mean"], ["alpha"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(n, kind, shape)
            for n, shape in zip(names, inputs, strict=True)
        ],
        [helper.make_tensor_value_info("alpha", TensorProto.FLOAT, output)],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.save(model, path)
    return WeightsFile(path, "given")


def test_fixed_and_dynamic_files(tmp_path):
    """Fixed and free batch and image sizes are recognised and a batch runs through either."""
    free = write_network(tmp_path / "free.onnx", [("N", 3, "H", "W")], ("N", 1, "H", "W"))
    fixed = write_network(tmp_path / "fixed.onnx", [(1, 3, 32, 32)], (1, 1, 32, 32))
    images = batch(3)[:, :, :32, :32]
    assert OnnxNetwork(free).size is None
    assert OnnxNetwork(fixed).size == 32
    for weights in (free, fixed):
        np.testing.assert_array_equal(OnnxNetwork(weights)(images), images.max(1))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        pytest.param({"inputs": [("N", 1, 32, 32)]}, "1, 32, 32", id="one channel"),
        pytest.param({"inputs": [("N", 32, 32, 3)]}, "32, 32, 3", id="channels last"),
        pytest.param({"inputs": [("N", 3, 32, 64)]}, "3, 32, 64", id="not square"),
        pytest.param({"inputs": [(3, 32, 32)], "output": (1, 32, 32)}, "3, 32, 32", id="3-D"),
        pytest.param({"inputs": [("N", 3, 32, 32)] * 2}, "input1", id="two inputs"),
        pytest.param({"kind": TensorProto.INT32}, "int32", id="integers"),
        pytest.param(
            {"inputs": [("N", 3, 32, 32)], "output": ("N", 2, 32, 32)}, "output", id="two classes"
        ),
    ],
)
def test_wrong_contract(arguments, found, tmp_path):
    """A file of another shape is refused: the error names file, find and expectation."""
    weights = write_network(tmp_path / "own.onnx", **arguments)
    with pytest.raises(WeightsError) as caught:
        OnnxNetwork(weights)
    message = str(caught.value)
    assert "own.onnx" in message
    assert found in message
    assert "expected" in message


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x07garbage" * 99])
def test_no_onnx(content, tmp_path):
    """What is no ONNX file at all is refused with its name."""
    path = tmp_path / "own.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"own\.onnx: .*expected an ONNX file"):
        OnnxNetwork(WeightsFile(path, "given"))


def test_bundled_network():
    """The bundled file takes the size of its settings, any batch, and answers in 0…1."""
    network = load_onnx(bundled())
    assert network.size == SIZE
    alphas = network(batch(2))
    assert alphas.shape[0] == 2
    assert alphas.dtype == np.float32
    assert alphas.min() >= 0
    assert alphas.max() <= 1


def test_a_batch_is_its_pictures():
    """A picture's answer does not depend on what else is in the batch."""
    network = load_onnx(bundled())
    images = batch(2)
    singles = np.concatenate([network(image[None]) for image in images])
    np.testing.assert_allclose(network(images), singles, atol=1e-5)


def test_torch_agrees_with_onnxruntime():
    """Both backends give the bundled network's answer within 1e-4."""
    images = batch(1)
    onnxruntime_alpha = load_onnx(bundled())(images)
    torch_alpha = load_torch(bundled())(images)
    assert torch_alpha.dtype == np.float32
    np.testing.assert_allclose(torch_alpha, onnxruntime_alpha, atol=1e-4)


def test_one_network_for_one_file(tmp_path, monkeypatch):
    """The same file is loaded once; other settings, or a replaced file, load another."""
    import onnxruntime

    weights = write_network(tmp_path / "own.onnx")
    first = load_onnx(weights)
    assert load_onnx(WeightsFile(tmp_path / "own.onnx", "given")) is first
    monkeypatch.chdir(tmp_path)
    assert load_onnx(find_weights("own.onnx")) is first

    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = 1
    assert load_onnx(weights, session_options=threads) is not first
    assert load_onnx(weights, providers=["CPUExecutionProvider"]).session.get_providers()

    write_network(tmp_path / "own.onnx", [("N", 3, 64, 64)], ("N", 1, 64, 64))
    assert load_onnx(weights).size == 64


def test_threads():
    """Eight threads on one network get the answers that one after the other gets."""
    network = load_onnx(bundled())
    inputs = [batch(seed=seed) for seed in range(8)]
    expected = [network(image) for image in inputs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(network, inputs))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_concurrent_loading_loads_once(tmp_path):
    """Eight threads that ask for a file at once share one network."""
    weights = write_network(tmp_path / "own.onnx")
    with ThreadPoolExecutor(8) as pool:
        networks = set(map(id, pool.map(lambda _: load_onnx(weights), range(8))))
    assert len(networks) == 1


def test_chosen_weights_that_torch_cannot_run(tmp_path, monkeypatch, caplog):
    """An ONNX file that is no U²-Net runs in onnxruntime, with a warning; as --ckpt it does not."""
    weights = write_network(tmp_path / "own.onnx")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(weights.path))
    images = batch()[:, :, :32, :32]
    np.testing.assert_array_equal(network_for(None, "cpu", jit=True)(images), images.max(1))
    assert "own.onnx" in caplog.text
    with pytest.raises(WeightsError, match=r"own\.onnx: .*not those of U²-Net"):
        network_for(weights.path, "cpu", jit=True)


def test_chosen_weights_that_nothing_can_run(tmp_path, monkeypatch, caplog):
    """Then there is one error, and no word of what would have run them."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "gone.onnx"))
    with pytest.raises(WeightsError, match=rf"gone\.onnx.*unset {ENVIRONMENT_VARIABLE}"):
        network_for(None, "cpu", jit=True)
    assert not caplog.text


@pytest.mark.parametrize("code", ["raise ImportError('no libcudart')", "import no_libcudart"])
def test_a_broken_onnxruntime_is_not_called_missing(code, tmp_path, monkeypatch):
    """What is there but cannot be imported says why; only what is not there is to be installed."""
    tmp_path.joinpath("onnxruntime.py").write_text(code)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BrokenExtraError, match=r"onnxruntime cannot be imported: .*libcudart") as e:
        default_providers()
    assert isinstance(e.value.__cause__, ImportError)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime is not installed; .*pip install"):
        default_providers()
