"""The front of teacher and student: an invertible map that reads no sample after a step, and joins chunk by chunk."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.tiny_models import FRONTS, MEL, speech_batch

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.errors import WavedistillError
from wavedistill.models.front import Front, FrontConfig

FRAMES = 6


def made(name):
    """The front in float64, two clips and what the mel tells it."""
    front = Front(FRONTS[name], MEL, upsample=4).double()
    audio, mel = speech_batch(2, FRAMES)
    return front, audio.double(), front.condition(mel.double())


@pytest.mark.parametrize("name", FRONTS)
def test_inverse_and_log_determinant(name):
    front, audio, condition = made(name)
    u, log_det = front.forward(audio, condition)
    back, log_det_back = front.inverse(u, condition)
    torch.testing.assert_close(back, audio, atol=1e-12, rtol=0)
    torch.testing.assert_close(log_det, -log_det_back)
    jacobian = torch.autograd.functional.jacobian(lambda x: front.forward(x, condition).value[0, 0, :128], audio)
    jacobian = jacobian[:, 0, 0, :128]
    slope = front.log_slope(u[:, 0], condition).expand(2, -1)
    assert float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(float(slope[0, :128].sum()), abs=1e-9)
    torch.testing.assert_close(slope.sum(1), log_det)


@pytest.mark.parametrize("name", FRONTS)
def test_no_value_depends_on_a_sample_after_its_step(name):
    front, audio, condition = made(name)
    jacobian = torch.autograd.functional.jacobian(lambda x: front.forward(x, condition).value[0, 0], audio)[:, 0, 0]
    step = torch.arange(jacobian.shape[0]) // front.config.bands
    assert not jacobian[step[:, None] < step].any()


@pytest.mark.parametrize("chunk", [64, 192])
@pytest.mark.parametrize("name", FRONTS)
def test_synthesis_in_chunks_is_the_inverse(name, chunk):
    front, audio, condition = made(name)
    u = front.forward(audio, condition).value[:, 0]
    past = None
    parts = []
    for start in range(0, u.shape[1], chunk):
        blocks = slice(start // 16, (start + chunk) // 16)
        part = None if condition is None else type(condition)(*(one[:, blocks] for one in condition))
        wave, past = front.synthesize(u[:, start : start + chunk], part, past)
        parts.append(wave)
    torch.testing.assert_close(torch.cat(parts, dim=1), audio[:, 0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("bands", [2, 4, 6, 64])
def test_bands_are_the_dct_of_each_block(bands):
    """scipy's, lowest band first, block after block: of the signal that the same front without bands gives."""
    from scipy.fft import dct

    front = Front(FrontConfig(pre_emphasis=0.9, scale=4.0, bands=bands), None, upsample=4).double()
    plain = Front(FrontConfig(pre_emphasis=0.9, scale=4.0), None, upsample=4).double()
    audio = torch.randn(2, 1, 3 * bands, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blocks = plain.forward(audio).value.reshape(2, 3, bands)
    expected = torch.from_numpy(dct(blocks.numpy(), type=2, norm="ortho"))
    torch.testing.assert_close(front.forward(audio).value, expected.reshape(2, 1, -1))


def test_a_narrower_lag_window_follows_sharper_peaks():
    """Of a tone between the mel's centres the narrow window's filter has the higher peak; both leave the mean power."""
    time = torch.arange(40 * MEL.hop_length) / MEL.sample_rate
    audio = 0.3 * torch.sin(2 * math.pi * 500.0 * time) + 1e-3 * torch.randn(
        len(time), generator=torch.Generator().manual_seed(0)
    )
    mel = LogMelSpectrogram(MEL)(audio.unsqueeze(0))
    peaks = []
    for width in (10.0, 30.0, 100.0):
        config = FrontConfig(mel_prediction_order=80, white_noise=1e-4, lag_window=width)
        lpc = Front(config, MEL, upsample=4).condition(mel)
        taps = torch.cat([torch.ones(1), -lpc.coefficients[0, 80]])
        response = torch.exp(lpc.log_gain[0, 80]) / torch.fft.rfft(taps, 1024).abs()
        peaks.append(float(response.max()))
    assert peaks[0] > 1.05 * peaks[1] > 1.05**2 * peaks[2]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(mel_prediction_order=8, pre_emphasis=0.9), "already whitens"),
        (dict(bands=0), "bands must be 1 or an even number from 2 to 64, got 0"),
        (dict(bands=7), "bands must be 1 or an even number from 2 to 64, got 7"),
        (dict(bands=128), "bands must be 1 or an even number from 2 to 64, got 128"),
    ],
)
def test_impossible_fronts_are_refused(options, message):
    with pytest.raises(WavedistillError, match=message):
        FrontConfig(**options)


def test_samples_that_are_no_whole_steps_are_refused():
    front = Front(FrontConfig(bands=8), None, upsample=4)
    with pytest.raises(WavedistillError, match="multiple of 8"):
        front.forward(torch.zeros(1, 1, 60))
