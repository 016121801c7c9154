"""A stream as graphs: chunk after chunk the audio of torch's stream and of one pass, and a script without torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.paths import ROOT
from helpers.tiny_models import FRONTS, MEL, speech_batch, speech_like, tiny_flow, tiny_student, tiny_teacher

from wavedistill import LogMelSpectrogram, cli
from wavedistill.errors import WavedistillError
from wavedistill.inference.export_stream import PARTS, WEIGHTS_FILE, StreamPart, export_stream, moving, planned
from wavedistill.inference.state_tree import form, replaced, tensors
from wavedistill.models.pretrained import load_pretrained, save_pretrained
from wavedistill.nn.wavenet_stack import StackConfig

SCRIPT = ROOT / "examples/onnx/stream.py"
STACK = StackConfig(num_layers=2, num_cycles=1, kernel_size=2, channels=8, skip_channels=8)
CONTRACTED = dataclasses.replace(FRONTS["sub-bands"], mel_contraction=2)
VOICES = {
    "all": lambda: tiny_student(
        front=CONTRACTED, patch_size=2, speakers=["ada", "bob"], stack=STACK, source_iterations=0
    ),
    "no contraction": lambda: tiny_student(front=FRONTS["mel-prediction"], stack=STACK),
    "no source": lambda: tiny_student(source_order=0, stack=STACK),
}


def in_pieces(first: int, chunk: int, frames: int) -> list[int]:
    """Where pieces end; the last one may be empty."""
    return [*range(first, frames + 1, chunk), frames]


def one_pass(model, mel, noise, speaker, low_latency):
    """The audio of one pass; in low latency torch's stream in two pieces."""
    if not low_latency:
        return model.sample(mel, noise=noise, speaker=speaker)
    drawn = iter(noise.split(model.hop_length, dim=-1))
    model._draw_frame = lambda generator: next(drawn)[0]
    try:
        return torch.cat(list(model.stream(mel, 20, seed=0, speaker=speaker, low_latency=True)), dim=-1)
    finally:
        del model._draw_frame


# ---- in torch


@pytest.mark.parametrize("low_latency", [False, True])
@pytest.mark.parametrize("name", VOICES)
def test_the_parts_join_to_the_whole(name, low_latency):
    model = VOICES[name]()
    hop = model.hop_length
    speaker = torch.tensor([1]) if model.config.speakers else None
    for chunk, frames_after in ((1, 2), (5, 0), (5, 1), (5, 9)):
        plan = planned(model, chunk, low_latency)
        assert chunk + model.frames_ahead(low_latency) <= plan.first_frames <= 6 + model.frames_ahead(low_latency)
        parts = {part: StreamPart(model, plan, part) for part in PARTS}
        frames = plan.first_frames + frames_after
        mel = speech_batch(1, frames)[1]
        noise = torch.randn(1, 1, frames * hop, generator=torch.Generator().manual_seed(frames))
        begin, state, audio = 0, None, []
        ends = in_pieces(plan.first_frames, chunk, frames)
        with torch.inference_mode():
            for number, end in enumerate(ends):
                part = "end" if number == len(ends) - 1 else "step" if number else "start"
                given = noise[..., begin * hop : end * hop], mel[..., begin:end]
                piece, *state = parts[part](*given, speaker, state)
                audio.append(piece)
                assert part != "step" or piece.shape[-1] == chunk * hop
                begin = end
        expected = one_pass(model, mel, noise, speaker, low_latency)
        torch.testing.assert_close(torch.cat(audio, dim=-1), expected, rtol=0, atol=1e-5)


def test_a_state_is_copied_with_other_tensors():
    plan = planned(VOICES["all"](), 3, low_latency=False)
    own = tensors(plan.state)
    other = replaced(plan.state, [value + 1 for value in own])
    assert form(other) == form(plan.state) and len(own) > 20
    for was, now in zip(own, tensors(other), strict=True):
        torch.testing.assert_close(now, was + 1)
    assert all(was is still for was, still in zip(own, tensors(plan.state), strict=True))
    assert other.student.conditions.encoding[0] is not plan.state.student.conditions.encoding[0]
    assert other.model is plan.state.model, "weights are no state"
    assert all(value.numel() for value in moving(plan.state, plan.fixed))


# ---- ONNX


@pytest.fixture(scope="module", params=[False, True], ids=["normal", "low latency"])
def exported(request, tmp_path_factory):
    """A student, the folder that the command wrote of it, and whether it is in low latency."""
    folder = tmp_path_factory.mktemp("exported")
    model = VOICES["all"]()
    save_pretrained(model, folder / "checkpoint")
    option = ["--low-latency"] if request.param else []
    arguments = ["export", str(folder / "checkpoint"), "--stream", "--chunk", "0.04", "--out", str(folder / "stream")]
    assert cli.main([*arguments, *option]) == 0
    return model, folder / "stream", request.param


def run_script(*arguments: object) -> subprocess.CompletedProcess:
    """The script in a process where importing torch or wavedistill fails."""
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['wavedistill'] = None\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        f"sys.argv = {[str(SCRIPT), *map(str, arguments)]!r}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def streamed(folder: Path, blocks, **options) -> np.ndarray:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import stream
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return np.concatenate(list(stream.stream(*stream.load_stream(str(folder), 1), blocks, **options)))


@pytest.mark.slow
@pytest.mark.timeout(900)  # tracing takes minutes
def test_onnx_streams_what_torch_makes(exported):
    pytest.importorskip("onnxruntime")
    model, folder, low_latency = exported
    first = planned(model, 5, low_latency).first_frames
    for frames in (first, first + 1, first + 3 * 5, first + 3 * 5 + 4):
        mel = speech_batch(1, frames)[1]
        noise = np.random.default_rng(frames).standard_normal((1, 1, frames * 64), dtype=np.float32)
        blocks = [block[0].numpy() for block in mel.split(4, dim=-1)]
        audio = streamed(folder, blocks, seed=frames, temperature=0.5, speaker=1)
        expected = one_pass(model, mel, 0.5 * torch.from_numpy(noise), torch.tensor([1]), low_latency)[0, 0].numpy()
        assert np.abs(expected).max() > 0.05
        np.testing.assert_allclose(audio, expected, rtol=0, atol=3e-4)


@pytest.mark.slow
def test_the_folder_tells_its_settings_and_keeps_weights_once(exported):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, folder, low_latency = exported
    assert sorted(path.name for path in folder.iterdir()) == ["end.onnx", "start.onnx", "step.onnx", WEIGHTS_FILE]
    weights = sum(value.numel() for value in model.parameters()) * 4
    assert 0.8 * weights < (folder / WEIGHTS_FILE).stat().st_size < 2.5 * weights
    for part in PARTS:
        assert b".py" not in (folder / f"{part}.onnx").read_bytes()
        session = onnxruntime.InferenceSession(folder / f"{part}.onnx", providers=["CPUExecutionProvider"])
        found = json.loads(session.get_modelmeta().custom_metadata_map["wavedistill"])
        assert found["stream"] == {
            "chunk_frames": 5,
            "first_frames": planned(model, 5, low_latency).first_frames,
            "low_latency": low_latency,
            "look_ahead_ms": model.look_ahead(low_latency)["in all"],
        }
        assert (found["sample_rate"], found["speakers"]) == (8000, ["ada", "bob"])
        names = [entry.name for entry in session.get_inputs()]
        assert names[:3] == ["noise", "mel", "speaker"] and (part == "start") == (names[3:] == [])


@pytest.mark.slow
def test_the_script_streams_without_torch(exported, tmp_path):
    model, folder, low_latency = exported
    audio = speech_like(0.51).numpy()
    soundfile.write(tmp_path / "in.wav", audio, 8000, subtype="FLOAT")
    done = run_script(folder, tmp_path / "in.wav", tmp_path / "out.wav", "--seed", 3, "--speaker", "bob")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.51 s of speech, the first after ") and "times real time" in done.stdout
    speech, rate = soundfile.read(tmp_path / "out.wav")
    mel = LogMelSpectrogram(MEL)(torch.from_numpy(audio)).unsqueeze(0)
    noise = np.random.default_rng(3).standard_normal((1, 1, mel.shape[-1] * 64), dtype=np.float32)
    expected = one_pass(model, mel, torch.from_numpy(noise), torch.tensor([1]), low_latency)[0, 0, : len(audio)]
    assert rate == 8000 and len(speech) == len(audio)
    np.testing.assert_allclose(speech, expected.clamp(-1, 1).numpy(), rtol=0, atol=2e-4)

    np.save(tmp_path / "short.npy", mel[0, :, :6].numpy())
    for arguments, message in (
        ((folder, tmp_path / "short.npy"), "the mel has 6 frames, and the stream starts with "),
        ((tmp_path, tmp_path / "short.npy"), "is no stream, start.onnx is missing: wavedistill export NAME --stream"),
        ((folder, tmp_path / "in.wav", "--speaker", "eve"), "there is no speaker eve: give 0..1 or one of ada, bob"),
    ):
        done = run_script(*arguments[:2], tmp_path / "other.wav", *arguments[2:])
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "other.wav").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # tracing takes minutes
@pytest.mark.parametrize("low_latency", [False, True])
def test_bundled_student(low_latency, tmp_path):
    pytest.importorskip("onnxruntime")
    model = load_pretrained("speech-student")
    folder = export_stream(model, tmp_path / "stream", low_latency=low_latency)
    speech, rate = soundfile.read(ROOT / "recipes/quickstart/clips/audio/en_agent-alreadyon.flac", dtype="float32")
    mel = LogMelSpectrogram(model.config.mel)(torch.from_numpy(np.resize(speech, 5 * rate))).unsqueeze(0)
    noise = np.random.default_rng(0).standard_normal((1, 1, mel.shape[-1] * model.hop_length), dtype=np.float32)
    audio = streamed(folder, [mel[0].numpy()])
    error = np.abs(audio - one_pass(model, mel, torch.from_numpy(noise), None, low_latency)[0, 0].numpy())
    assert (error > 1e-4).mean() < 0.005 and error.max() < 1e-3


# ---- what cannot be


def test_what_has_no_stream_is_refused(tmp_path):
    pytest.importorskip("onnxscript")
    for model, message in (
        (tiny_teacher(), "a teacher cannot be exported"),
        (tiny_flow(), "only students can be exported"),
        (tiny_student(mel=None), "takes no mel, and only mels are streamed: export it as one file"),
    ):
        with pytest.raises(WavedistillError, match=message):
            export_stream(model, tmp_path / "stream")
    with pytest.raises(WavedistillError, match="give a positive length"):
        export_stream(tiny_student(), tmp_path / "stream", 0.0)
    with pytest.raises(WavedistillError, match=r"a stream is a folder of graphs: give a folder, .*voice, not .*\.onnx"):
        export_stream(tiny_student(), tmp_path / "voice.onnx")
    assert not list(tmp_path.iterdir())


def test_options_without_effect_are_refused(tmp_path, capsys):
    for options, message in (
        (["--chunk", "0.1"], "--chunk and --low-latency say how a stream goes: give --stream with them"),
        (["--low-latency"], "--chunk and --low-latency say how a stream goes: give --stream with them"),
        (["--stream", "--format", "onnx"], "a stream is always ONNX: leave --format out"),
    ):
        assert cli.main(["export", "speech-student", "--out", str(tmp_path / "voice"), *options]) == 2
        assert message in capsys.readouterr().err
