"""What an ONNX file holds, read without the package onnx: its constants, nodes and notes.

onnxruntime runs such files, torch does not read them, and the package onnx is in neither host.
So that one file serves both runtimes, this reads the few fields that rebuilding a network
needs, from the format as onnx.proto defines it (protocol buffers, wire format).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

#: Codes of onnx.proto's TensorProto.DataType that weights and shapes come in.
_TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}


#: What reading something else raises.
_DAMAGE = (IndexError, KeyError, TypeError, UnicodeDecodeError)


class Node(NamedTuple):
    """One operation of the graph."""

    operation: str
    inputs: list[str]
    outputs: list[str]


class Graph(NamedTuple):
    """The part of a file that this module reads."""

    #: In the order of execution.
    nodes: list[Node]
    #: By name, read-only. Constants of other types than numbers, or in other files, are left out.
    constants: Mapping[str, npt.NDArray[Any]]
    #: Shape of the first input; 0 stands for a dimension that is free.
    input_shape: list[int]
    #: metadata_props: free text by key.
    metadata: Mapping[str, str]


def read_graph(content: bytes) -> Graph:
    """Read an ONNX file's content.

    Raises:
        ValueError: it is no ONNX file, or it is cut short.
    """
    try:
        graph, metadata = _model(content)
        return _graph(graph, metadata)
    except _DAMAGE as error:
        raise ValueError(f"not an ONNX file ({error})") from None


def read_metadata(content: bytes) -> Mapping[str, str]:
    """An ONNX file's metadata_props alone, free text by key, in a moment however large it is.

    Raises:
        ValueError: it is no ONNX file, or it is cut short.
    """
    try:
        return _model(content)[1]
    except _DAMAGE as error:
        raise ValueError(f"not an ONNX file ({error})") from None


def _model(content: bytes) -> tuple[memoryview, dict[str, str]]:
    """The bytes of its graph, and its metadata."""
    graph, metadata = memoryview(b""), {}
    for field, value in _fields(memoryview(content)):
        if field == 7:
            graph = _message(value)
        elif field == 14:
            entry = dict(_fields(_message(value)))
            metadata[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
    return graph, metadata


def _graph(graph: memoryview, metadata: Mapping[str, str]) -> Graph:
    nodes: list[Node] = []
    constants: dict[str, npt.NDArray[Any]] = {}
    shapes: list[list[int]] = []
    for field, value in _fields(graph):
        if field == 1:
            nodes.append(_node(_message(value)))
        elif field == 5:
            name, array = _tensor(_message(value))
            if array is not None:
                constants[name] = array
        elif field == 11:
            shapes.append(_shape(_message(value)))
    if not nodes:
        raise ValueError("not an ONNX file: it has no operations")
    return Graph(nodes, constants, shapes[0] if shapes else [], metadata)


def _node(message: memoryview) -> Node:
    inputs, outputs, operation = [], [], ""
    for field, value in _fields(message):
        if field == 1:
            inputs.append(_text(value))
        elif field == 2:
            outputs.append(_text(value))
        elif field == 4:
            operation = _text(value)
    return Node(operation, inputs, outputs)


def _tensor(message: memoryview) -> tuple[str, npt.NDArray[Any] | None]:
    dims: list[int] = []
    kind, name = 0, ""
    raw: memoryview | None = None
    for field, value in _fields(message):
        if field == 1:
            # One number, or several packed into one field.
            dims += [value] if isinstance(value, int) else _varints(value)
        elif field == 2 and isinstance(value, int):
            kind = value
        elif field == 4:  # float_data, packed: what old exporters write for short constants
            raw, kind = _message(value), 1
        elif field == 8:
            name = _text(value)
        elif field == 9:
            raw = _message(value)
    if raw is None or kind not in _TYPES:
        return name, None
    return name, np.frombuffer(raw, np.dtype(_TYPES[kind]).newbyteorder("<")).reshape(dims)


def _shape(message: memoryview) -> list[int]:
    """Of a ValueInfoProto: type → tensor_type → shape → dim → dim_value."""
    parts = [message]
    for wanted in (2, 1, 2, 1):
        parts = [
            _message(value) for part in parts for field, value in _fields(part) if field == wanted
        ]
    values = (dict(_fields(part)).get(1, 0) for part in parts)
    return [value if isinstance(value, int) else 0 for value in values]


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an integer, or the bytes of text, a message, numbers."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        value: int | memoryview
        if kind == 0:
            value, place = _varint(message, place)
        else:
            if kind == 2:
                length, place = _varint(message, place)
            else:
                length = {1: 8, 5: 4}[kind]
            value = message[place : place + length]
            place += length
            if len(value) != length:
                raise IndexError("it is cut short")
        yield key >> 3, value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise IndexError("a number has more than 64 bits")


def _varints(value: int | memoryview) -> list[int]:
    message, place, found = _message(value), 0, []
    while place < len(message):
        number, place = _varint(message, place)
        found.append(number)
    return found


def _message(value: int | memoryview | bytes) -> memoryview:
    if isinstance(value, int):
        raise TypeError("a number where a message belongs")
    return memoryview(value)


def _text(value: int | memoryview | bytes) -> str:
    return bytes(_message(value)).decode("utf-8")
