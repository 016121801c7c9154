"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from wavedistill.distributed import Ranks, resolve_device
from wavedistill.errors import WavedistillError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Pretend that there are so many; gives the list of devices that were made the current one."""
    current: list[torch.device] = []

    def pretend(count: int) -> list[torch.device]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        return current

    return pretend


def test_auto_takes_a_gpu_where_there_is_one(gpus) -> None:
    gpus(0)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto", Ranks(1, 2, 1)) == torch.device("cpu")
    gpus(2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")


def test_every_process_has_its_own_gpu(gpus) -> None:
    current = gpus(2)
    ranks = [Ranks(rank, 2, rank) for rank in range(2)]
    assert [resolve_device("auto", one) for one in ranks] == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert resolve_device("cuda:0", ranks[1]) == torch.device("cuda:0")
    assert current == [torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cuda:0")]
    with pytest.raises(WavedistillError, match=r"no device cuda:2 here \(2 CUDA devices\)"):
        resolve_device("cuda", Ranks(2, 3, 2))


def test_what_is_not_there_says_what_to_type(gpus) -> None:
    gpus(0)
    with pytest.raises(WavedistillError, match="unknown device 'abacus': give auto, cpu, cuda or cuda:N as --device"):
        resolve_device("abacus")
    with pytest.raises(WavedistillError, match=r"no device cuda here \(0 CUDA devices\): try --run.device cpu"):
        resolve_device("cuda", option="--run.device")
    gpus(1)
    with pytest.raises(WavedistillError, match=r"no device cuda:1 here \(1 CUDA devices\): try --device cpu"):
        resolve_device("cuda:1")
