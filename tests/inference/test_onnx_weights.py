"""Weights of ONNX graphs in half precision, and in one file for several graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wavedistill.inference.onnx_weights import halve, move_out, round_to_half

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

WIDTH = 32


def graph_of(**weights: np.ndarray):
    """x times each of the weights in turn."""
    names = ["x", *(f"product_{name}" for name in weights)]
    nodes = [
        onnx.helper.make_node("MatMul", [before, name], [after])
        for before, name, after in zip(names[:-1], weights, names[1:], strict=True)
    ]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, WIDTH]) for name in ("x", names[-1])]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = onnx.helper.make_graph(nodes, "graph", ends[:1], ends[1:], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)


def matrix(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((WIDTH, WIDTH), dtype=np.float32) / 8


def output(model: str | bytes) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ones((1, WIDTH), np.float32)})[0]


def test_what_float16_holds_is_kept_in_it_and_nothing_else():
    layer = nn.Linear(WIDTH, WIDTH)
    round_to_half(layer)
    rounded = layer.weight.detach().numpy()
    large = np.full((WIDTH, WIDTH), 1e6, np.float32)
    graph = graph_of(rounded=rounded, exact=matrix(1), large=large)
    before = output(graph.SerializeToString())
    halve(graph)
    onnx.checker.check_model(graph)
    assert [(one.name, one.data_type) for one in graph.graph.initializer] == [
        ("rounded.half", onnx.TensorProto.FLOAT16),
        ("exact", onnx.TensorProto.FLOAT),
        ("large", onnx.TensorProto.FLOAT),
    ]
    np.testing.assert_array_equal(output(graph.SerializeToString()), before)
    assert layer.weight.dtype is torch.float32


def test_equal_weights_of_several_graphs_are_kept_once(tmp_path):
    small = np.full(WIDTH, 2.0, np.float32)[:, None] * np.eye(WIDTH, dtype=np.float32)[:1]  # (WIDTH, WIDTH)
    graphs = {"one": graph_of(a=matrix(1), b=matrix(2)), "two": graph_of(c=matrix(2), d=matrix(3), e=small)}
    expected = {name: output(graph.SerializeToString()) for name, graph in graphs.items()}
    content = move_out(graphs.values(), "weights.bin")
    assert len(content) == 4 * WIDTH * WIDTH * 4
    (tmp_path / "weights.bin").write_bytes(content)
    for name, graph in graphs.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(graph.SerializeToString())
        assert path.stat().st_size < 1000
        np.testing.assert_array_equal(output(str(path)), expected[name])
