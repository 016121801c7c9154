"""Streaming: the joined chunks are the whole, in constant memory, and the first comes early."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
import soundfile
import torch
from helpers.chunks import random_lengths
from helpers.released_voices import CLIP, load_voice
from helpers.tiny_models import FRONTS, MEL, tiny_flow, tiny_student, tiny_teacher

from wavedistill import Vocoder, load_audio, save_audio
from wavedistill.errors import WavedistillError

VOICES = {
    "student": tiny_student,
    "student with contraction": lambda: tiny_student(front=replace(FRONTS["sub-bands"], mel_contraction=2)),
    "flow": tiny_flow,
    "teacher": tiny_teacher,
    "teacher of steps": lambda: tiny_teacher(linear_order=3, front=FRONTS["sub-bands"]),
    "mixture teacher": lambda: tiny_teacher(distribution="mol"),
}


@pytest.fixture(scope="module", params=VOICES)
def voice(request) -> Vocoder:
    return Vocoder(VOICES[request.param]())


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.randn(MEL.n_mels, 41, generator=torch.Generator().manual_seed(0)) - 4


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 16, 40, 41, 100])
def test_chunks_join_to_the_whole(voice, mel, frames):
    chunks = list(voice.stream(mel, chunk_seconds=frames * 64 / 8000, seed=4))
    assert all(len(chunk) == frames * 64 for chunk in chunks[:-1])
    torch.testing.assert_close(torch.cat(chunks), voice(mel, seed=4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("low_latency", [False, True])
def test_a_mel_may_come_in_blocks(voice, mel, low_latency):
    whole = torch.cat(list(voice.stream(mel, 0.04, seed=4, low_latency=low_latency)))
    for seed in range(2):
        asked = []

        def blocks(seed: int = seed, asked: list = asked):
            for block in mel.split(random_lengths(41, 6, seed), 1):
                yield block.numpy()
                asked.append(block.shape[1])

        stream = voice.stream(blocks(), 0.04, seed=4, low_latency=low_latency)
        first = next(stream)
        assert len(first) == 5 * 64
        assert sum(asked) < 5 + voice.model.frames_ahead(low_latency), "the block that completes it is the last"
        torch.testing.assert_close(torch.cat([first, *stream]), whole, atol=1e-5, rtol=0)
    if not low_latency:
        torch.testing.assert_close(whole, voice(mel, seed=4), atol=1e-5, rtol=0)


def test_the_bundled_student_streams_in_low_latency():
    """The same waveform for any chunks, at most 100 ms behind its mel, and not another speech than in one pass."""
    voice = load_voice("speech-student")
    audio, rate = load_audio(CLIP)
    mel = voice.mel(audio, rate)[:, 30:130]
    assert voice.model.look_ahead(low_latency=True)["in all"] <= 100.0
    whole = voice(mel, seed=0)
    torch.testing.assert_close(torch.cat(list(voice.stream(mel, 0.2, seed=0))), whole, atol=1e-5, rtol=0)
    prompt = torch.cat(list(voice.stream(mel, 0.2, seed=0, low_latency=True)))
    blocks = iter(mel.split(3, 1))
    other = torch.cat(list(voice.stream(blocks, 0.33, seed=0, low_latency=True)))
    torch.testing.assert_close(other, prompt, atol=1e-5, rtol=0)
    distances = [float((voice.mel(wave) - mel).abs().mean()) for wave in (whole, prompt)]
    assert distances[0] < distances[1] < 2.0 * distances[0]


def test_speaker_and_temperature_reach_the_model(mel):
    voice = Vocoder(tiny_student(speakers=("ann", "bob")))
    chunks = list(voice.stream(mel, 0.1, 4, temperature=0.5, speaker="bob"))
    torch.testing.assert_close(torch.cat(chunks), voice(mel, seed=4, temperature=0.5, speaker="bob"), atol=1e-5, rtol=0)


def test_chunks_are_computed_when_asked_for(voice, mel):
    asked = []
    original = voice.model.stream

    def counted(*args, **kwargs):
        for chunk in original(*args, **kwargs):
            asked.append(len(asked))
            yield chunk

    try:
        voice.model.stream = counted
        stream = voice.stream(mel, chunk_seconds=0.04)
        assert asked == []
        list(itertools.islice(stream, 2))
        assert len(asked) == 2
    finally:
        del voice.model.stream


def test_memory_does_not_grow(voice):
    """The bytes that tensors reachable from the stream's state hold are the same early and late."""
    import gc

    def held() -> int:
        gc.collect()
        tensors = (t for t in gc.get_objects() if issubclass(type(t), torch.Tensor))  # isinstance wakes dead proxies
        return sum(t.numel() * t.element_size() for t in tensors)

    long = torch.randn(MEL.n_mels, 120) - 4
    stream = voice.stream(long, chunk_seconds=0.04)
    list(itertools.islice(stream, 3))
    early = held()
    list(itertools.islice(stream, 8))
    assert held() <= early + 4096


def test_gradients_stay_on_for_the_caller(voice, mel):
    for _ in itertools.islice(voice.stream(mel, 0.04), 2):
        assert torch.is_grad_enabled()


def test_joined_chunks_are_saved_as_the_whole_is(voice, mel, tmp_path):
    start = time.perf_counter()
    first = None
    chunks = []
    for chunk in voice.stream(mel, 0.04, seed=4):
        first = first or time.perf_counter() - start
        chunks.append(chunk)
    spent = time.perf_counter() - start
    save_audio(tmp_path / "out.wav", torch.cat(chunks), 8000)
    audio, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate == 8000
    torch.testing.assert_close(torch.from_numpy(audio), voice(mel, seed=4).clamp(-1, 1), atol=5e-5, rtol=0)
    seconds = sum(map(len, chunks)) / rate
    assert seconds == pytest.approx(41 * 64 / 8000)
    assert 0 < first < spent  # the first sound comes before the last
    assert len(audio) == sum(map(len, chunks))


def test_stopped_stream_leaves_no_file(voice, mel, tmp_path):
    def chunks():
        yield next(voice.stream(mel, 0.04))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_audio(tmp_path / "out.wav", torch.cat(list(chunks())), 8000)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_file(voice, mel, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WavedistillError, match="cannot write"):
        save_audio(tmp_path / "file" / "out.wav", torch.cat(list(voice.stream(mel, 0.04))), 8000)


def test_refusals(voice, mel):
    with pytest.raises(WavedistillError, match="positive"):
        voice.stream(mel, chunk_seconds=0.0)
    with pytest.raises(WavedistillError, match="transposed"):
        voice.stream(mel.T)
    with pytest.raises(WavedistillError, match="transposed"):
        next(voice.stream(iter([mel.T])))
    with pytest.raises(WavedistillError, match="holds no frames"):
        next(voice.stream(iter([])))
    with pytest.raises(WavedistillError, match="NaN"):
        list(voice.stream(iter([mel, torch.full_like(mel, torch.nan)])))
    with pytest.raises(WavedistillError, match="takes no mel"):
        Vocoder(tiny_teacher(mel=None)).stream(mel)
