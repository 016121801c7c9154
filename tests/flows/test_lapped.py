"""Lapped transforms: orthogonal to the ends, known values, and bands that leak less with more overlap."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers.lapped_bands import HEAD, PAGE, ar1_variances, coding_gain, figures, side_lobe, transforms
from helpers.paths import ROOT

from wavedistill.errors import WavedistillError
from wavedistill.flows import LappedTransform

F64 = torch.float64


def matrix(split: LappedTransform, blocks: int) -> torch.Tensor:
    """(samples, samples): row by row the coefficients, step after step, of a signal of so many blocks."""
    samples = blocks * split.bands
    y = split.forward(torch.eye(samples, dtype=F64).unsqueeze(1)).value  # (samples, bands, blocks)
    return y.transpose(1, 2).reshape(samples, samples).T


@pytest.mark.parametrize(
    ("bands", "overlap"), [(1, 0), (3, 0), *itertools.product([2, 4, 6, 16, 64], [0, 1, 2])], ids=str
)
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 7])
def test_orthogonal_at_any_length(bands, overlap, blocks):
    split = LappedTransform(bands, overlap)
    rows = matrix(split, blocks)
    eye = torch.eye(blocks * bands, dtype=F64)
    torch.testing.assert_close(rows @ rows.T, eye, atol=1e-14, rtol=0)
    back = split.inverse(split.forward(eye.unsqueeze(1)).value).value
    torch.testing.assert_close(back[:, 0], eye, atol=1e-14, rtol=0)


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_round_trip_in_single_precision(overlap):
    split = LappedTransform(16, overlap)
    x = torch.randn(4, 1, 16 * 500, generator=torch.Generator().manual_seed(0))
    y, log_det = split.forward(x)
    back = split.inverse(y).value
    assert y.dtype == back.dtype == torch.float32
    assert float((back - x).abs().max()) < 5e-6
    assert torch.equal(log_det, torch.zeros(4))


@pytest.mark.parametrize("bands", [1, 2, 5, 8, 10, 64])
def test_block_transform_is_scipy_s(bands):
    from scipy.fft import dct

    x = torch.randn(2, 1, 5 * bands, dtype=F64, generator=torch.Generator().manual_seed(1))
    expected = dct(x.reshape(2, 5, bands).numpy(), type=2, norm="ortho").transpose(0, 2, 1)
    torch.testing.assert_close(LappedTransform(bands, 0).forward(x).value, torch.from_numpy(expected.copy()))


@pytest.mark.parametrize("bands", [1, 2, 8])
def test_lowest_band_without_overlap_is_the_mean(bands):
    x = torch.randn(1, 1, 4 * bands, dtype=F64, generator=torch.Generator().manual_seed(8))
    split = LappedTransform(bands, 0)
    mean = x.reshape(4, bands).mean(1)
    torch.testing.assert_close(split.forward(x).value[0, 0], math.sqrt(bands) * mean)
    rest = split.forward(torch.ones_like(x)).value[0, 1:]
    torch.testing.assert_close(rest, torch.zeros_like(rest), atol=1e-14, rtol=0)


def test_one_band_is_no_split():
    x = torch.randn(2, 1, 9, generator=torch.Generator().manual_seed(9))
    split = LappedTransform(1, 0)
    assert torch.equal(split.forward(x).value, x) and torch.equal(split.inverse(x).value, x)
    assert torch.equal(torch.cat(list(stream(split.analyze_chunk, x.split(2, dim=-1))), -1), x)
    assert split.basis().tolist() == [[1.0]]


@pytest.mark.parametrize("bands", [2, 8, 12])
def test_modulated_transform_is_the_mdct(bands):
    """By its definition: a sine window of two blocks, and cosines whose phase cancels the aliases; same signs."""
    x = torch.randn(1, 1, 6 * bands, dtype=F64, generator=torch.Generator().manual_seed(2))
    time = torch.arange(2 * bands, dtype=F64)
    window = torch.sin(math.pi / (2 * bands) * (time + 0.5))
    phase = time - bands / 2 + 0.5  # counted from the block's first sample
    frequency = torch.arange(bands, dtype=F64) + 0.5
    filters = math.sqrt(2 / bands) * window * torch.cos(math.pi / bands * frequency.unsqueeze(1) * phase)
    frames = x[0, 0, bands // 2 : -bands // 2].unfold(0, 2 * bands, bands)
    y = LappedTransform(bands).forward(x).value[0]
    torch.testing.assert_close(y[:, 1:-1], filters @ frames.T)


@pytest.mark.parametrize("bands", [2, 8, 12])
def test_extended_transform_is_modulated(bands):
    """One symmetric window of four blocks and the same cosines: cosine modulation, whatever the angles are."""
    support = 4 * bands
    row = matrix(LappedTransform(bands, 2), 5).reshape(5, bands, 5 * bands)[2, :, bands // 2 : -bands // 2]
    phase = torch.arange(support, dtype=F64) - 1.5 * bands + 0.5
    frequency = torch.arange(bands, dtype=F64) + 0.5
    cosines = math.sqrt(2 / bands) * torch.cos(math.pi / bands * frequency.unsqueeze(1) * phase)
    window = (row * cosines).sum(0) / cosines.square().sum(0)
    torch.testing.assert_close(window, window.flip(0))
    torch.testing.assert_close(row, window * cosines)
    assert (window[bands // 2 : -bands // 2] > 0).all() and (window[: bands // 2] < 0).all()


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_slow_sinusoids_stay_slow(overlap):
    """Every band turns by the sinusoid's own phase advance: y_{n+1} + y_{n-1} = 2 cos(frequency M) y_n, no flips."""
    bands = 8
    frequency = 0.02
    x = torch.cos(frequency * torch.arange(bands * 40, dtype=F64) + 1.0).reshape(1, 1, -1)
    y = LappedTransform(bands, overlap).forward(x).value[0, :, 3:-3]
    torch.testing.assert_close(y[:, 2:] + y[:, :-2], 2 * math.cos(frequency * bands) * y[:, 1:-1])


def test_jacobian_through_torch_func():
    split = LappedTransform(4, 2)
    x = torch.randn(1, 1, 16, dtype=F64, generator=torch.Generator().manual_seed(3))
    jacobian = torch.func.jacrev(lambda v: split.forward(v).value.transpose(1, 2).reshape(-1))(x).reshape(16, 16)
    torch.testing.assert_close(jacobian, matrix(split, 4))
    batched = torch.func.vmap(torch.func.jacfwd(lambda v: split.inverse(v[None]).value[0, 0]))(
        torch.randn(3, 4, 4, dtype=F64)
    )
    inverse = batched.transpose(-1, -2).reshape(3, 16, 16)
    torch.testing.assert_close(inverse, matrix(split, 4).T.expand(3, 16, 16))


def test_the_module_s_precision_does_not_matter():
    split = LappedTransform(8, 2)
    x = torch.randn(1, 1, 64, dtype=F64, generator=torch.Generator().manual_seed(4))
    expected = split.forward(x).value
    assert torch.equal(split.half().forward(x).value, expected)
    assert not split.state_dict()


def filled(page) -> list[str]:
    """The lines that helpers/lapped_bands.py has filled in."""
    _, _, rest = page.read_text(encoding="utf-8").partition("<!-- lapped:begin -->\n")
    return rest.partition("<!-- lapped:end -->")[0].splitlines()


def random_cuts(total: int, generator: torch.Generator) -> list[int]:
    """Chunk lengths that add up to ``total``: 0 to 4 each."""
    lengths = []
    while sum(lengths) < total:
        lengths.append(min(int(torch.randint(5, (), generator=generator)), total - sum(lengths)))
    return lengths or [0]


def stream(function, chunks):
    state = None
    for number, chunk in enumerate(chunks):
        value, state = function(chunk, state, number == len(chunks) - 1)
        yield value
    assert state is None


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("blocks", [0, 1, 2, 3, 5, 23])
@pytest.mark.parametrize("seed", range(4))
def test_streamed_equals_whole(overlap, blocks, seed):
    generator = torch.Generator().manual_seed(seed)
    bands = 6
    split = LappedTransform(bands, overlap)
    x = torch.randn(2, 1, blocks * bands, dtype=F64, generator=generator)
    y = split.forward(x).value
    cuts = random_cuts(blocks, generator)
    chunks = x.split([bands * length for length in cuts], dim=-1)
    torch.testing.assert_close(torch.cat(list(stream(split.analyze_chunk, chunks)), -1), y, atol=1e-14, rtol=0)
    chunks = y.split(cuts, dim=-1)
    torch.testing.assert_close(torch.cat(list(stream(split.synthesize_chunk, chunks)), -1), x, atol=1e-14, rtol=0)


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_a_stream_holds_back_its_delay(overlap):
    bands = 6
    split = LappedTransform(bands, overlap)
    assert split.analysis_delay == split.synthesis_delay == (0, 3, 9)[overlap]
    x = torch.randn(1, 1, 10 * bands, dtype=F64, generator=torch.Generator().manual_seed(5))
    y, state = split.analyze_chunk(x, None, False)
    assert y.shape[-1] == 10 - overlap
    audio, _ = split.synthesize_chunk(y, None, False)
    assert audio.shape[-1] == y.shape[-1] * bands - split.synthesis_delay
    for number, more in enumerate(torch.zeros(8, 1, 1, bands, dtype=F64)):
        y, state = split.analyze_chunk(more, state, number == 7)
        assert y.shape[-1] == (1 + overlap if number == 7 else 1)


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_delays_are_what_the_matrix_needs(overlap):
    """The last sample that step n sees, and the last sample that does not see step n + 1."""
    bands = 6
    split = LappedTransform(bands, overlap)
    rows = matrix(split, 9).reshape(9, bands, 9 * bands)
    reach = rows[4].abs().amax(0).nonzero()
    assert int(reach.max()) + 1 == 5 * bands + split.analysis_delay
    assert int(reach.min()) == 4 * bands - split.synthesis_delay  # step 4 given, samples from here on may still change
    blocks = (rows[:, :, 4 * bands : 5 * bands].abs().amax((1, 2)) > 0).nonzero()
    assert blocks.flatten().tolist() == list(range(4 - overlap, 5 + overlap))


def test_a_stream_has_gradients():
    split = LappedTransform(4, 2)
    x = torch.randn(1, 1, 24, dtype=F64, generator=torch.Generator().manual_seed(6))
    weights = torch.randn(1, 4, 6, dtype=F64, generator=torch.Generator().manual_seed(7))

    def streamed(x):
        return (torch.cat(list(stream(split.analyze_chunk, x.split(8, dim=-1))), -1) * weights).sum()

    torch.testing.assert_close(torch.func.grad(streamed)(x), split.inverse(weights).value)


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("bands", [2, 8])
def test_basis_holds_the_filters_of_every_inner_step(bands, overlap):
    split = LappedTransform(bands, overlap)
    basis = split.basis()
    support = max(1, 2 * overlap) * bands
    assert basis.shape == (bands, support) and basis.dtype == F64
    torch.testing.assert_close(basis @ basis.T, torch.eye(bands, dtype=F64), atol=1e-14, rtol=0)
    rows = matrix(split, 11).reshape(11, bands, 11 * bands)
    for step in range(overlap, 11 - overlap):
        start = step * bands - (support - bands) // 2
        torch.testing.assert_close(rows[step, :, start : start + support], basis, atol=1e-15, rtol=0)


@pytest.mark.parametrize("bands", [4, 8, 16, 32, 64])
def test_bands_leak_less_with_more_overlap(bands):
    block, modulated, extended = (side_lobe(LappedTransform(bands, overlap).basis()) for overlap in (0, 1, 2))
    assert 6 < block < 8 and 22 < modulated < 24.5 and 33 < extended < 34.5
    gains = [coding_gain(ar1_variances(LappedTransform(bands, overlap).basis())) for overlap in (0, 1, 2)]
    assert gains[0] + 0.1 < gains[1] < gains[2] < 10 * math.log10(1 / (1 - 0.95**2))  # prediction from all the past


def test_the_page_s_table_is_what_the_code_does():
    """But for the last column, which needs recordings."""
    cells = [row.strip("|").split("|") for row in filled(ROOT / PAGE) if row.startswith("| ") and "---" not in row]
    shown = [[cell.strip() for cell in row[:-1]] for row in cells]
    assert shown == [[str(cell) for cell in row] for row in [HEAD[:-1], *map(figures, transforms())]]


def test_errors_say_what_is_needed():
    for bands in (0, 65, -2):
        for overlap in (0, 1, 2):
            with pytest.raises(WavedistillError, match=f"needs 1 to 64 bands, got {bands}"):
                LappedTransform(bands, overlap)
    for bands in (1, 3):
        for overlap in (1, 2):
            with pytest.raises(WavedistillError, match=f"with overlap needs an even number of bands, got {bands}"):
                LappedTransform(bands, overlap)
    for overlap in (-1, 3):
        with pytest.raises(WavedistillError, match=f"overlap from 0 to 2, got {overlap}"):
            LappedTransform(4, overlap)
    with pytest.raises(WavedistillError, match=r"multiple of 4, got shape \(2, 1, 10\)"):
        LappedTransform(4).forward(torch.zeros(2, 1, 10))
    with pytest.raises(WavedistillError, match=r"\(batch, 1, samples\).*got shape \(2, 3, 8\)"):
        LappedTransform(4).forward(torch.zeros(2, 3, 8))
    with pytest.raises(WavedistillError, match=r"\(batch, 4, steps\), got shape \(2, 3, 8\)"):
        LappedTransform(4).inverse(torch.zeros(2, 3, 8))
