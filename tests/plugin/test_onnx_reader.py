"""ONNX files read without the package onnx: the same as the package reads."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from u2net_human_plugin.onnx_reader import read_graph
from u2net_human_plugin.weights import bundled


def file() -> bytes:
    """A small network with constants of each type and way of storing them."""
    halves = np.arange(6, dtype=np.float16).reshape(2, 3, 1, 1)
    constants = [
        numpy_helper.from_array(halves, "w.half"),
        numpy_helper.from_array(np.array([1, -2], np.int64), "shape"),
        helper.make_tensor("listed", TensorProto.FLOAT, [2], [0.5, -1.5]),
        helper.make_tensor("text", TensorProto.STRING, [1], [b"left out"]),
    ]
    nodes = [
        helper.make_node("Cast", ["w.half"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["image", "w", "listed"], ["alpha"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 384, 384])
    alpha = helper.make_tensor_value_info("alpha", TensorProto.FLOAT, ["batch", 2, 384, 384])
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [alpha], constants))
    helper.set_model_props(model, {"settings": '{"size": 384, "ü": 1}'})
    return bytes(model.SerializeToString())


def test_everything_that_is_asked_for():
    """Nodes in order, constants by name, the input's shape, the notes."""
    graph = read_graph(file())
    assert [node.operation for node in graph.nodes] == ["Cast", "Conv"]
    assert graph.nodes[1].inputs == ["image", "w", "listed"]
    assert graph.nodes[0].outputs == ["w"]
    assert graph.input_shape == [0, 3, 384, 384]
    assert graph.metadata == {"settings": '{"size": 384, "ü": 1}'}
    assert sorted(graph.constants) == ["listed", "shape", "w.half"]
    np.testing.assert_array_equal(graph.constants["listed"], np.float32([0.5, -1.5]))
    np.testing.assert_array_equal(graph.constants["shape"], [1, -2])
    assert graph.constants["w.half"].dtype == np.float16
    assert graph.constants["w.half"].shape == (2, 3, 1, 1)


def test_the_bundled_file_is_read_as_the_package_reads_it():
    """Every constant, bit for bit."""
    content = bundled().read()
    expected = onnx.load_from_string(content).graph
    graph = read_graph(content)
    assert [node.operation for node in graph.nodes] == [node.op_type for node in expected.node]
    assert graph.constants.keys() == {constant.name for constant in expected.initializer}
    for constant in expected.initializer:
        ours, theirs = graph.constants[constant.name], numpy_helper.to_array(constant)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08", b"\xff" * 40, file()[:200]])
def test_what_is_no_onnx_file_is_a_value_error(content):
    """Empty, text, cut short: never another exception."""
    with pytest.raises(ValueError, match=r"ONNX|cut|type|bits"):
        read_graph(content)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(file()) - 1), st.integers(0, 255))
def test_damage_is_read_or_refused(place, value):
    """Any byte changed: a graph or a ValueError."""
    content = bytearray(file())
    content[place] = value
    with contextlib.suppress(ValueError):
        read_graph(bytes(content))
