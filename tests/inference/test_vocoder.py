"""The vocoder: lengths, seeds, the mel it accepts, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny_models import MEL, speech_like, tiny_flow, tiny_student, tiny_teacher

from wavedistill import Vocoder
from wavedistill.errors import WavedistillError
from wavedistill.inference import vocoder as vocoder_module
from wavedistill.models.front import FrontConfig


@pytest.fixture(scope="module")
def student() -> Vocoder:
    return Vocoder(tiny_student())


@pytest.fixture(scope="module")
def teacher() -> Vocoder:
    return Vocoder(tiny_teacher())


@pytest.mark.parametrize("frames", [1, 2, 7, 40])
def test_length_is_frames_times_hop(student, frames):
    audio = student(torch.randn(MEL.n_mels, frames) - 4)
    assert audio.shape == (frames * MEL.hop_length,)
    assert audio.dtype == torch.float32 and torch.isfinite(audio).all()


@pytest.mark.parametrize("samples", [1, 63, 64, 65, 4000])
def test_audio_keeps_its_length(student, samples):
    assert student(speech_like(1.0)[:samples]).shape == (samples,)


@pytest.mark.parametrize("rate", [4000, 11025, 44100])
def test_other_sample_rates_are_resampled(student, rate):
    audio = speech_like(0.25, rate)
    assert student(audio, rate).shape == (-(-len(audio) * 8000 // rate),)


def test_audio_and_its_mel_give_the_same(student):
    audio = speech_like(0.3)
    assert torch.equal(student(audio, seed=5), student(student.mel(audio), seed=5)[: len(audio)])


def test_numpy_and_int16_are_taken(student):
    audio = speech_like(0.2)
    int16 = (audio * 32768).round().to(torch.int16)
    assert torch.equal(student(audio.numpy()), student(audio))
    torch.testing.assert_close(student.mel(int16.numpy()), student.mel(int16 / 32768))
    expected = student(audio)
    for same in (audio[None], audio[None].numpy(), audio.numpy().astype(">f4"), audio.numpy()[::-1].copy()[::-1]):
        assert torch.equal(student(same), expected)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        torch.testing.assert_close(student.mel(audio.to(dtype)), student.mel(audio.to(dtype).float()))
    mel = student.mel(audio)
    assert torch.equal(student(mel.numpy()[:, ::-1][:, ::-1]), student(mel))


@pytest.fixture(scope="module")
def flow() -> Vocoder:
    return Vocoder(tiny_flow())


@pytest.mark.parametrize("kind", ["student", "teacher", "flow"])
def test_seed_decides_the_audio(kind, request):
    voice = request.getfixturevalue(kind)
    mel = torch.randn(MEL.n_mels, 3) - 4
    assert torch.equal(voice(mel, seed=1), voice(mel, seed=1))
    assert not torch.equal(voice(mel, seed=1), voice(mel, seed=2))
    assert not torch.equal(voice(mel, seed=None), voice(mel, seed=None))


def test_temperature_zero_has_no_noise(student):
    mel = torch.randn(MEL.n_mels, 3) - 4
    assert torch.equal(student(mel, seed=1, temperature=0.0), student(mel, seed=2, temperature=0.0))


@pytest.mark.parametrize("kind", ["student", "flow"])
def test_batch_of_mels_equals_each_alone(kind, request):
    voice = request.getfixturevalue(kind)
    mels = torch.randn(3, MEL.n_mels, 6) - 4
    together = voice.render(mels, [7, 8, 9])
    for mel, seed, audio in zip(mels, [7, 8, 9], together, strict=True):
        torch.testing.assert_close(voice(mel, seed=seed), audio, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["student", "flow"])
def test_long_mels_are_computed_in_chunks_with_the_same_result(kind, request, monkeypatch):
    voice = request.getfixturevalue(kind)
    mel = torch.randn(MEL.n_mels, 60) - 4
    whole = voice(mel, seed=1)
    monkeypatch.setattr(vocoder_module, "LONG_SECONDS", 0.2)
    torch.testing.assert_close(voice(mel, seed=1), whole, atol=1e-5, rtol=0)


def test_save_and_load(student, tmp_path):
    student.save_pretrained(tmp_path / "a", card="# mine")
    (tmp_path / "a" / "samples").mkdir()
    (tmp_path / "a" / "samples" / "x.wav").write_bytes(b"x")
    loaded = Vocoder.from_pretrained(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / "README.md").read_text() == "# mine"
    assert (tmp_path / "b" / "samples" / "x.wav").read_bytes() == b"x"
    mel = torch.randn(MEL.n_mels, 3) - 4
    assert torch.equal(Vocoder.from_pretrained(tmp_path / "b")(mel), student(mel))


def test_speakers_by_name_and_index():
    voice = Vocoder(tiny_student(speakers=("ann", "bob")))
    mel = torch.randn(MEL.n_mels, 3) - 4
    assert torch.equal(voice(mel, speaker="bob"), voice(mel, speaker=1))
    assert not torch.equal(voice(mel, speaker="ann"), voice(mel, speaker="bob"))
    for wrong in (None, "eve", 2, -1, 0.5):
        with pytest.raises(WavedistillError, match="ann, bob"):
            voice(mel, speaker=wrong)


def test_speaker_of_a_model_without(student):
    with pytest.raises(WavedistillError, match="no speakers"):
        student(torch.randn(MEL.n_mels, 3) - 4, speaker=0)


@pytest.mark.parametrize("make", [tiny_teacher, tiny_student, tiny_flow])
def test_unconditional_models_sample(make):
    voice = Vocoder(make(mel=None))
    audio = voice.sample(0.05, seed=1)
    assert audio.shape == (400,)
    assert torch.equal(voice.sample(0.05, seed=1), audio)
    for call in (
        lambda: voice(speech_like(0.1)),
        lambda: voice.mel(speech_like(0.1)),
        lambda: voice(torch.zeros(20, 3)),
    ):
        with pytest.raises(WavedistillError, match="unconditional"):
            call()
    with pytest.raises(WavedistillError, match="positive"):
        voice.sample(0.0)


@pytest.mark.parametrize("make", [tiny_teacher, tiny_student, tiny_flow])
def test_seconds_need_not_be_whole_steps(make):
    voice = Vocoder(make(mel=None, front=FrontConfig(bands=8)))
    audio = voice.sample(0.05125, seed=1)
    assert audio.shape == (410,)
    torch.testing.assert_close(voice.sample(0.052, seed=1)[:410], audio, atol=1e-5, rtol=0)


def test_conditioned_models_do_not_sample_freely(student):
    with pytest.raises(WavedistillError, match="vocoder\\(mel\\)"):
        student.sample(1.0)


BAD = {
    "transposed": (lambda: torch.randn(40, MEL.n_mels) - 4, "transposed"),
    "decibels": (lambda: torch.rand(MEL.n_mels, 9) * -80, "decibels"),
    "bands": (lambda: torch.randn(80, 9) - 4, "80 bands"),
    "nan mel": (lambda: torch.full((MEL.n_mels, 9), torch.nan), "NaN"),
    "batch": (lambda: torch.randn(2, MEL.n_mels, 9) - 4, "one utterance"),
    "no frames": (lambda: torch.zeros(MEL.n_mels, 0), "no frames"),
    "empty audio": (lambda: torch.zeros(0), "empty"),
    "nan audio": (lambda: torch.full((99,), torch.nan), "NaN"),
    "int32 audio": (lambda: torch.zeros(99, dtype=torch.int32), "int16"),
    "stereo": (lambda: torch.randn(2, 900), r"stereo audio: pass audio.mean\(0\)"),
    "stereo, as soundfile reads it": (lambda: np.zeros((900, 2)), r"stereo audio: pass audio.mean\(1\)"),
    "text": (lambda: "speech.wav", "array"),
    "strings": (lambda: np.array(["a"]), "array"),
}


@pytest.mark.parametrize("make, message", BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused(student, make, message):
    with pytest.raises(WavedistillError, match=message):
        student(make())


def test_bfloat16_is_for_students_and_close(student, teacher, tmp_path):
    folder = student.save_pretrained(tmp_path / "student")
    mel = student.mel(speech_like(0.5))
    half, full = (Vocoder.from_pretrained(folder, precision=p)(mel, seed=1) for p in ("bf16", "fp32"))
    assert torch.equal(full, student(mel, seed=1)) and not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0, atol=0.02)
    with pytest.raises(WavedistillError, match="bf16 is for students.*teacher"):
        Vocoder.from_pretrained(teacher.save_pretrained(tmp_path / "teacher"), precision="bf16")
    with pytest.raises(WavedistillError, match="precision must be fp32 or bf16, got 'fp16'"):
        Vocoder.from_pretrained(folder, precision="fp16")
