"""One ONNX file from a U²-Net: dynamic batch, one alpha output in 0…1, parity-checked.

Convolutions are stored in half precision, which halves the file, and computed in single
precision: a runtime casts them once, when it loads the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from u2net_human_plugin.checkpoint import MEMBERS, describe
from u2net_human_plugin.settings import Settings, settings_of
from u2net_human_plugin.u2net import Ensemble, Net, SaliencyNetwork, fold_batch_norm

from ..files import written_atomically
from .settings_file import add_settings

#: Largest difference between torch's and onnxruntime's alpha that an export may show.
PARITY = 1e-4


#: Smaller constants (biases, scales) stay in single precision: folded ones exceed 1000.
_LARGE = 256


@torch.no_grad()
def rounded(model: Net) -> Net:
    """Fold batch normalisation and round every convolution's weights to half precision, in place.

    The result computes exactly what the file made from it does.
    """
    for module in fold_batch_norm(model.eval()).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() >= _LARGE:
            module.weight.copy_(module.weight.half().float())
    return model


class _Alpha(nn.Module):
    """The network's first output as alpha in 0…1: (N,3,H,W) → (N,1,h,w)."""

    def __init__(self, model: SaliencyNetwork | Ensemble) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.model(image)[0])


def write_onnx(
    model: SaliencyNetwork | Ensemble, path: Path | str, settings: Settings | None = None
) -> float:
    """Write ``model`` as ONNX and return its largest difference from torch.

    The file has one input ``image`` (N,3,size,size), of the network's own size if it has one,
    else of the settings', and one output ``alpha`` (N,1,h,w) float32 in 0…1; ``settings`` (None:
    the defaults) are in its metadata. ``model`` is :func:`rounded`, in place.
    The file is written under a temporary name and renamed only after the parity check.

    Raises:
        RuntimeError: the difference exceeds :data:`PARITY`; nothing is written.
    """
    import onnxruntime

    path, settings = Path(path), settings_of(settings, model.size)
    size = settings.size
    network = _Alpha(rounded(model)).eval()
    generator = torch.Generator().manual_seed(0)
    # Two images: with one, the exporter would fix the batch size.
    example = torch.randn(2, 3, size, size, generator=generator)
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        input_names=["image"],
        output_names=["alpha"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    with written_atomically(path) as temporary:
        proto = _halved(_without_notes(program.model_proto))
        if isinstance(model, Ensemble):
            proto.metadata_props.add(key=MEMBERS, value=json.dumps(describe(model)))
        add_settings(proto, settings)
        temporary.write_bytes(proto.SerializeToString())
        session = onnxruntime.InferenceSession(
            temporary.read_bytes(), providers=["CPUExecutionProvider"]
        )
        probe = torch.randn(3, 3, size, size, generator=generator)
        with torch.inference_mode():
            expected = network(probe).numpy()
        difference = float(np.abs(session.run(None, {"image": probe.numpy()})[0] - expected).max())
        if not difference <= PARITY:
            raise RuntimeError(
                f"{path}: onnxruntime and torch differ by {difference:.2g} (at most {PARITY} "
                "allowed); nothing was written."
            )
    return difference


def _without_notes(proto: Any) -> Any:
    """Remove, in place, the exporter's notes for debugging: a tenth of the lite file.

    These are the Python source line of every node, names of intermediate shapes and the
    exported program's signature. No runtime reads them.
    """
    graph = proto.graph
    del graph.metadata_props[:]
    del graph.value_info[:]
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    return proto


def _halved(proto: Any) -> Any:
    """Store, in place, every large float32 constant as float16, cast where it is used."""
    from onnx import TensorProto, helper, numpy_helper

    graph, casts = proto.graph, []
    for constant in graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype == np.float32 and values.size >= _LARGE:
            name = constant.name
            half = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
            constant.CopyFrom(half)
            casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return proto
