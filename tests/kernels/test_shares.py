"""Loops on several threads give what they give on one, bit for bit."""

import pytest
import torch

from wavedistill.audio.mel import MelConfig, mel_filter_bank
from wavedistill.dsp.mel_inversion import MelInversion
from wavedistill.kernels import block_gate as gate_module
from wavedistill.kernels.block_gate import block_gate
from wavedistill.kernels.levinson import levinson_recursion
from wavedistill.kernels.mel_gain import MelGain
from wavedistill.kernels.shares import in_shares

MEL = MelConfig(sample_rate=8000, n_fft=64, win_length=64, hop_length=16, n_mels=8, f_max=4000.0)


@pytest.fixture
def threads():
    """Sets torch's threads, and puts them back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count, least, expected", [(10, 4, 2), (10, 6, 1), (0, 4, 1), (11, 1, 3)])
def test_shares_make_up_the_whole(count, least, expected, threads):
    threads(3)
    taken = []
    in_shares(lambda first, last: taken.append((first, last)), count, least)
    assert len(taken) == expected
    assert sorted(row for first, last in taken for row in range(first, last)) == list(range(count))


def test_an_error_in_a_share_is_raised(threads):
    threads(2)

    def work(first: int, last: int) -> None:
        if first:
            raise ValueError(f"rows {first} to {last}")

    with pytest.raises(ValueError, match="rows 4 to 8"):
        in_shares(work, 8, 1)


def _levinson() -> list[torch.Tensor]:
    x = torch.randn(70, 200, generator=torch.Generator().manual_seed(0)).double()
    return list(levinson_recursion(torch.stack([(x[:, lag:] * x[:, : 200 - lag]).sum(1) for lag in range(20)], 1)))


def _gate() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [block_gate(torch.randn(2, 96, 16, generator=generator), torch.randn(2, 24, 16, generator=generator))]


def _gain() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    spectrum = torch.randn(2, 130, 33, dtype=torch.complex64, generator=generator)
    return [MelGain(mel_filter_bank(MEL), 1e-5, 1e-18, 3.0)(spectrum, torch.rand(2, 130, 16, generator=generator))]


def _inversion() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    inversion = MelInversion(mel_filter_bank(MEL))
    return [inversion(torch.rand(2, 200, 8, generator=generator), torch.rand(2, 200, 33, generator=generator))]


@pytest.mark.parametrize("run", [_levinson, _gate, _gain, _inversion])
def test_as_on_one_thread(run, threads, monkeypatch):
    monkeypatch.setattr(gate_module, "VALUES", 64)
    threads(1)
    alone = run()
    threads(2)
    for found, expected in zip(run(), alone, strict=True):
        assert torch.equal(found, expected)
