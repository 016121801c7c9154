"""The examples in the docstrings of the flows and of the parts they are built of give what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import wavedistill.flows
import wavedistill.nn
import wavedistill.playground

MODULES = [
    module.name
    for package in (wavedistill.flows, wavedistill.nn, wavedistill.playground)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    torch.manual_seed(0)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert not result.failed


@pytest.mark.parametrize("name", [name for name in wavedistill.flows.__all__ if name[0].isupper()])
def test_every_transform_is_documented_with_an_example(name):
    value = getattr(wavedistill.flows, name)
    assert value.__doc__, name
    if inspect.isclass(value) and issubclass(value, wavedistill.flows.Transform):
        module = inspect.getdoc(inspect.getmodule(value)) or ""
        assert ">>>" in value.__doc__ or ">>>" in module, f"{name} has no example"
        assert "References" in value.__doc__ or "References" in module, f"{name} names no source"
