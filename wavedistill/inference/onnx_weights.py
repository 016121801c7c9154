"""Weights of ONNX graphs: kept in half precision, and kept once for several graphs.

Needs onnx. Graphs are ``onnx.ModelProto``.

References:
    https://onnx.ai/onnx/repo-docs/ExternalData.html: tensors in a file beside the graph
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

LEAST = 1024
"""Bytes of a tensor that is worth it; what shapes are computed from is smaller, and must stay as it is."""
ALIGNMENT = 64
"""Bytes that the start of a tensor in a common file is a multiple of."""


@torch.no_grad()
def round_to_half(model: nn.Module) -> None:
    """Round the parameters to float16, which `halve` then keeps as such; they stay float32."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half())


def halve(graph: Any) -> None:
    """Keep every float32 tensor that float16 holds exactly as float16, with a cast that a runtime does while loading.

    Tensors that are no rounded weights, as windows and filters, stay in their precision.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.raw_data) < LEAST:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half, values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def move_out(graphs: Iterable[Any], location: str) -> bytes:
    """Take the large tensors out of the graphs; returns the file of that name beside them, where equal ones are one."""
    from onnx import TensorProto

    content = bytearray()
    places: dict[bytes, int] = {}
    for graph in graphs:
        for tensor in graph.graph.initializer:
            raw = tensor.raw_data
            if len(raw) < LEAST:
                continue
            if raw not in places:
                content += bytes(-len(content) % ALIGNMENT)
                places[raw] = len(content)
                content += raw
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", places[raw]), ("length", len(raw))):
                tensor.external_data.add(key=key, value=str(value))
    return bytes(content)
