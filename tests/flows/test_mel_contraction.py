"""Contraction towards a mel: a bijection on recordings, noise and silence, its log-determinant, what rounding does."""

import pytest
import torch
from helpers.released_voices import CLIP

from wavedistill.audio.io import load_audio
from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.errors import WavedistillError
from wavedistill.flows import MelContraction
from wavedistill.flows.solvers.krylov import krylov_log_det
from wavedistill.flows.solvers.log_det import draw_noise, jacobian
from wavedistill.flows.solvers.monotone import invert_monotone

F64 = torch.float64
MEL = MelConfig(n_fft=256, win_length=256, hop_length=64, n_mels=20)
FRAMES = 10


def mel_of(wave):
    return LogMelSpectrogram(MEL).to(wave.dtype)(wave[:, 0])


@pytest.fixture(scope="module")
def speech():
    """Two seconds of a recording (1, 1, samples) in float64, on the 16-bit grid."""
    audio, rate = load_audio(CLIP)
    assert rate == MEL.sample_rate
    return audio.reshape(1, 1, -1)[..., 16000:48000].double()


def waves(speech):
    """What the layer can meet where the mel is that of the first: (1, 1, samples) each."""
    middle = speech[..., 11200 : 11200 + FRAMES * MEL.hop_length]
    noise = torch.randn(middle.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    return {
        "speech": middle,
        "other speech": speech[..., 20000 : 20000 + FRAMES * MEL.hop_length],
        "noisy speech": middle + 0.3 * middle.std() * noise,
        "noise": 0.1 * noise,
        "silence": torch.zeros_like(middle),
    }


KINDS = ("speech", "other speech", "noisy speech", "noise", "silence")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
def test_round_trip(speech, kind, dtype):
    found = waves(speech)
    mel = mel_of(found["speech"]).to(dtype)
    wave = found[kind].to(dtype)
    contraction = MelContraction(MEL, steps=6, damping=0.5)
    tolerance = 1e-4 if dtype is torch.float32 else 1e-9
    with torch.no_grad():
        for there, back in ((contraction.contract, contraction.expand), (contraction.expand, contraction.contract)):
            result = back(there(wave, mel), mel)
            assert result.dtype == dtype
            assert float((result - wave).norm()) <= tolerance * float(wave.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_strongly_monotone(speech, kind):
    """At the greatest damping of use and full strength."""
    found = waves(speech)
    contraction = MelContraction(MEL, steps=1, damping=0.75)
    mel = mel_of(found["speech"])
    assert kind == "silence" or float(contraction.steps.strength(mel).mean()) > 0.9
    matrix = jacobian(contraction.steps.step(mel), found[kind][:, 0])[1][0]
    assert float(torch.linalg.eigvalsh(0.5 * (matrix + matrix.T))[0]) > 0.1
    assert float(torch.linalg.matrix_norm(matrix, 2)) < 3.0


def test_recordings_are_fixed_points(speech):
    mel = mel_of(speech)
    contraction = MelContraction(MEL, steps=8)
    for direction in (contraction.contract, contraction.expand):
        assert float((direction(speech, mel) - speech).abs().max()) < 1e-10


def test_rounding_moves_a_recording_little(speech):
    """The mel of a recording, and the recording with other noise below its 16th bit."""
    mel = mel_of(speech)
    noise = torch.rand(speech.shape, dtype=F64, generator=torch.Generator().manual_seed(0)) - 0.5
    latent = MelContraction(MEL, steps=12, damping=0.5).expand(speech + noise / 32768, mel)
    deviation = (mel_of(latent) - mel).abs()
    assert 0.0 < float(deviation.mean()) < 0.1 and float(deviation.max()) < 1.0


def test_contraction(speech):
    """What is heard is nearer to the mel than the latent by about the factor stated, where the tiles are loud."""
    mel = mel_of(speech)
    noise = torch.randn(speech.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    latent = speech * (1.0 + 0.1 * torch.sin(torch.arange(speech.shape[2]) / 4000.0)) + 0.03 * speech.std() * noise
    loud = mel > mel.median() + 1.0
    before = (mel_of(latent) - mel)[loud].abs().mean()
    distances = [
        float((mel_of(MelContraction(MEL, steps).contract(latent, mel)) - mel)[loud].abs().mean() / before)
        for steps in (2, 4, 8)
    ]
    assert distances[0] < 0.6 and distances[1] < 0.4 and distances[2] < 0.3


def test_log_det_of_a_short_wave_is_exact(speech):
    found = waves(speech)
    mel = mel_of(found["speech"])
    contraction = MelContraction(MEL, steps=3)
    latent = found["noisy speech"]
    data, log_det = contraction.inverse(latent, mel)
    matrix = jacobian(lambda x: contraction.contract(x.unsqueeze(1), mel)[:, 0], latent[:, 0])[1][0]
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(matrix).logabsdet, rtol=1e-10, atol=0)
    torch.testing.assert_close(contraction.forward(data, mel).log_det, -log_det, rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", ["speech", "noisy speech", "noise"])
def test_estimate_is_within_its_error(speech, kind):
    found = waves(speech)
    mel = mel_of(found["speech"])
    contraction = MelContraction(MEL, steps=3, probes=16)
    exact = contraction.inverse(found[kind], mel).log_det
    value, error = contraction.estimate_log_det(found[kind], mel)
    assert float((value - exact).abs()) < 4.0 * float(error) < 0.2 * float(exact.abs())
    again = contraction.estimate_log_det(found[kind].repeat(2, 1, 1), mel.repeat(2, 1, 1))
    torch.testing.assert_close(again.value, value.repeat(2), rtol=1e-9, atol=0)


def test_the_estimates_of_a_long_wave_cancel(speech):
    mel = mel_of(speech)
    contraction = MelContraction(MEL, steps=2, probes=2)
    latent = (speech + 0.01 * torch.sin(torch.arange(speech.shape[2]))).float()
    data, log_det = contraction.inverse(latent, mel.float())
    back, log_det_back = contraction.forward(data, mel.float())
    assert log_det.dtype == torch.float32 and float(log_det) < -100.0
    torch.testing.assert_close(back, latent, atol=1e-5, rtol=0)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-3, atol=0)
    torch.testing.assert_close(contraction.estimate_log_det(latent, mel.float()).value.float(), log_det)


def test_gradients_by_wave_and_mel(speech):
    found = waves(speech)
    mel = mel_of(found["speech"]).requires_grad_()
    wave = found["noisy speech"].clone().requires_grad_()
    contraction = MelContraction(MEL, steps=2)
    for direction in (contraction.contract, contraction.expand):
        assert torch.autograd.gradcheck(direction, (wave, mel), fast_mode=True, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("frames_per_chunk", [7, 100])
def test_streamed_equals_whole(speech, frames_per_chunk):
    contraction = MelContraction(MEL, steps=2)
    wave = speech[..., : 60 * MEL.hop_length].float()
    mel = mel_of(wave) + 0.3
    pieces = zip(wave.split(frames_per_chunk * MEL.hop_length, dim=2), mel.split(frames_per_chunk, dim=2), strict=True)
    state = contraction.stream_state()
    chunks = [contraction.contract_chunk(*piece, state, last=False) for piece in pieces]
    chunks.append(contraction.contract_chunk(wave[..., :0], mel[..., :0], state, last=True))
    torch.testing.assert_close(torch.cat(chunks, 2), contraction.contract(wave, mel), atol=1e-6, rtol=0)


def test_what_it_cannot_take():
    wave = torch.zeros(1, 1, 128)
    with pytest.raises(WavedistillError, match=r"a frame for every 64 samples: shape \(1, 20, 2\), got \(1, 20, 1\)"):
        MelContraction(MEL, 2).forward(wave, torch.zeros(1, 20, 1))
    with pytest.raises(WavedistillError, match="needs 2 probes or more, got 1"):
        MelContraction(MEL, 2, probes=1)
    with pytest.raises(WavedistillError, match="damping between 0 and 1, got 2 and 1.5"):
        MelContraction(MEL, 2, damping=1.5)


def stiff(x):
    """Slopes from 0.2 to 5 and more."""
    first, second, third = x.unbind(1)
    return torch.stack([0.2 * first + 0.3 * first**3, 5.0 * second + first, third + 0.9 * torch.tanh(third)], 1)


def test_monotone_maps_are_inverted_where_the_plain_iteration_diverges():
    x = torch.randn(50, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = invert_monotone(stiff, stiff(x), tolerance=1e-13)
    torch.testing.assert_close(found, x, atol=1e-8, rtol=0)


def test_a_map_that_is_not_onto_is_an_error():
    with pytest.raises(WavedistillError, match=r"relative residual is .* after 40 evaluations, tolerance 1.0e-06"):
        invert_monotone(torch.tanh, torch.tensor([[2.0]]), max_iterations=40)


def test_krylov_log_det_of_a_matrix_of_which_the_space_is_all():
    """With as many products as there are dimensions the forms are exact, and so is their mean over a basis."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.eye(5, dtype=F64) + 0.2 * torch.randn(5, 5, dtype=F64, generator=generator)
    basis = 5**0.5 * torch.eye(5, dtype=F64)
    forms = krylov_log_det(lambda x: x @ matrix.T, torch.zeros(2, 5, dtype=F64), basis, products=5)
    torch.testing.assert_close(forms.mean(0), torch.linalg.slogdet(matrix).logabsdet.expand(2))
    noise = draw_noise("rademacher", basis, generator)
    scaled = krylov_log_det(lambda x: 0.5 * x, torch.zeros(1, 5, dtype=F64), noise, products=3)
    torch.testing.assert_close(scaled, torch.full_like(scaled, 5 * torch.log(torch.tensor(0.5, dtype=F64)).item()))
