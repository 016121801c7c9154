"""Exported students: the same audio through onnxruntime and from a saved program, and a script that speaks without
torch.
"""

from __future__ import annotations

import builtins
import copy
import dataclasses
import importlib.util
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
from torch import nn

from wavedistill import LogMelSpectrogram, MelConfig, ParallelWaveNet, Vocoder, cli
from wavedistill.config import to_dict
from wavedistill.dsp.mel_stft import power, weighed
from wavedistill.errors import WavedistillError
from wavedistill.inference import export, onnx_fourier
from wavedistill.inference.export import export_model, settings
from wavedistill.inference.export_stream import export_stream
from wavedistill.inference.onnx_weights import round_to_half
from wavedistill.kernels.block_filter import block_fir
from wavedistill.kernels.levinson import levinson_recursion
from wavedistill.kernels.recursive_filter import recursive_filter
from wavedistill.models.pretrained import load_pretrained, save_pretrained
from wavedistill.nn.causal_conv import CausalConv
from wavedistill.nn.wavenet_stack import StackConfig

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SCRIPT = ROOT / "examples/onnx/synthesize.py"
STACK = StackConfig(num_layers=2, num_cycles=1, kernel_size=2, channels=8, skip_channels=8)


def student(**options) -> ParallelWaveNet:
    """With everything that a student can have: source, front of linear prediction and sub-bands, patches, speakers,
    contraction towards the mel.

    One projection of the source: more of them make the phases of its faintest bins a matter of rounding, in torch alone
    too.
    """
    return tiny_student(
        **{
            "front": dataclasses.replace(FRONTS["sub-bands"], mel_contraction=2),
            "patch_size": 2,
            "speakers": ["ada", "bob"],
            "stack": STACK,
            "source_iterations": 0,
            **options,
        }
    )


def session_of(content: str | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def voice(tmp_path_factory) -> tuple[ParallelWaveNet, Path]:
    """A student, and its ONNX file written by the command."""
    folder = tmp_path_factory.mktemp("voice")
    model = student()
    save_pretrained(model, folder / "checkpoint")
    path = folder / "files" / "voice.onnx"
    assert cli.main(["export", str(folder / "checkpoint"), "--out", str(path)]) == 0
    return model, path


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("onnx_synthesize", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- ONNX


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 1), (1, 7), (3, 50), (1, 251)])
def test_onnx_makes_the_audio_that_torch_makes(voice, batch, frames):
    model, path = voice
    noise = torch.randn(batch, 1, frames * model.hop_length)
    speaker = torch.arange(batch) % 2
    mel = speech_batch(batch, frames)[1]
    inputs = {"noise": noise.numpy(), "mel": mel.numpy(), "speaker": speaker.numpy()}
    audio = session_of(str(path)).run(["audio"], inputs)[0]
    expected = model.sample(mel, noise=noise, speaker=speaker).numpy()
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(audio, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_file_tells_its_settings_and_nothing_of_this_machine(voice):
    model, path = voice
    session = session_of(str(path))
    found = json.loads(session.get_modelmeta().custom_metadata_map["wavedistill"])
    assert found == settings(model)
    assert found["mel"] == to_dict(MEL) and MelConfig(**found["mel"]) == MEL
    assert (found["model_type"], found["sample_rate"], found["hop_length"], found["speakers"]) == (
        "parallel_wavenet",
        8000,
        64,
        ["ada", "bob"],
    )
    assert [entry.name for entry in session.get_inputs()] == ["noise", "mel", "speaker"]
    assert b".py" not in path.read_bytes()
    assert [entry.name for entry in path.parent.iterdir()] == ["voice.onnx"], "no temporary file is left"


@pytest.mark.slow
def test_weights_in_half_precision(voice, tmp_path):
    model, path = voice
    half = export_model(model, tmp_path / "half.onnx", half=True)
    weights = sum(value.numel() for value in model.parameters())
    assert half.stat().st_size < path.stat().st_size - 1.5 * weights
    rounded = copy.deepcopy(model)
    round_to_half(rounded)
    noise = torch.randn(1, 1, 20 * model.hop_length)
    mel = speech_batch(1, 20)[1]
    inputs = {"noise": noise.numpy(), "mel": mel.numpy(), "speaker": np.array([1])}
    audio = session_of(str(half)).run(["audio"], inputs)[0]
    expected = rounded.sample(mel, noise=noise, speaker=torch.tensor([1])).numpy()
    np.testing.assert_allclose(audio, expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory) -> tuple[ParallelWaveNet, Path]:
    """A student without mel, behind a pre-emphasis, in both formats; in training mode, which exporting must not mind
    nor change.
    """
    folder = tmp_path_factory.mktemp("unconditional")
    model = tiny_student(mel=None, front=FRONTS["pre-emphasis"], stack=STACK).train()
    for name in ("one.onnx", "one.pt2"):
        assert export_model(model, folder / name) == folder / name
    assert model.training
    return model.eval(), folder


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (3, 2)])
def test_a_student_without_mel_takes_noise_alone(unconditional, batch, frames):
    model, folder = unconditional
    noise = torch.randn(batch, 1, frames * model.hop_length)
    expected = model.sample(num_samples=noise.shape[-1], batch_size=batch, noise=noise).numpy()
    session = session_of(str(folder / "one.onnx"))
    np.testing.assert_allclose(session.run(["audio"], {"noise": noise.numpy()})[0], expected, rtol=0, atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["wavedistill"])["mel"] is None


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (3, 2)])
def test_the_saved_program_makes_the_audio_that_the_model_makes(unconditional, batch, frames):
    model, folder = unconditional
    noise = torch.randn(batch, 1, frames * model.hop_length)
    files = {"wavedistill.json": ""}
    program = torch.export.load(folder / "one.pt2", extra_files=files)
    expected = model.sample(num_samples=noise.shape[-1], batch_size=batch, noise=noise)
    torch.testing.assert_close(program.module()(noise=noise), expected, rtol=0, atol=1e-5)
    assert json.loads(files["wavedistill.json"]) == settings(model)


@pytest.mark.slow
@pytest.mark.timeout(900)  # tracing takes minutes
@pytest.mark.parametrize("file", ["student.onnx", "student.pt2"])
def test_bundled_student(file, tmp_path):
    """Real speech, 10 s of it too. The source's phases are ill-conditioned in places: there torch's float32 and float64
    differ as much.
    """
    model = load_pretrained("speech-student")
    path = export_model(model, tmp_path / file)
    vocoder = Vocoder(model)
    speech, rate = soundfile.read(ROOT / "recipes/quickstart/clips/audio/en_agent-alreadyon.flac", dtype="float32")
    mel = vocoder.mel(np.resize(speech, 10 * rate), rate).unsqueeze(0)
    generator = torch.Generator().manual_seed(0)
    for part in (mel, mel[..., 60:61], torch.cat([mel[..., 20:77], mel[..., 40:97]])):
        noise = torch.randn(len(part), 1, part.shape[-1] * model.hop_length, generator=generator)
        if path.suffix == ".onnx":
            audio = session_of(str(path)).run(["audio"], {"noise": noise.numpy(), "mel": part.numpy()})[0]
        else:
            audio = torch.export.load(path).module()(noise=noise, mel=part).detach().numpy()
        error = np.abs(audio - model.sample(part, noise=noise).numpy())
        assert (error > 1e-4).mean() < 0.005 and error.max() < 1e-3


# ---- operators in ONNX's own words


class Call(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


def decaying(*shape: int) -> torch.Tensor:
    """Coefficients of stable filters."""
    return 0.9 * (2 * torch.rand(*shape) - 1) / shape[-1]


def autocorrelations(batch: int, blocks: int, order: int) -> torch.Tensor:
    x = torch.randn(batch, blocks, 4 * order).double()
    return torch.stack([(x[..., lag:] * x[..., : 4 * order - lag]).sum(-1) for lag in range(order + 1)], -1)


def filter_arguments(size: int, order: int):
    return lambda b, n: (torch.randn(b, n, size), decaying(b, n, order), torch.randn(b, order))


def there_and_back(wave: torch.Tensor) -> torch.Tensor:
    """Spectra of overlapping windows, weighed, and their inverse transforms."""
    spectrum = torch.fft.rfft(wave.unfold(1, 12, 8))
    return torch.fft.irfft(weighed(spectrum, 1.0 / (1.0 + power(spectrum))), n=12)


CASES = {
    "recursive filter": (recursive_filter, filter_arguments(64, 32)),
    "recursive filter, blocks shorter than its order": (recursive_filter, filter_arguments(5, 7)),
    "recursive filter of order 1": (recursive_filter, filter_arguments(3, 1)),
    "finite filter": (block_fir, lambda b, n: (torch.randn(b, 5 * n + 6), torch.randn(b, n, 7))),
    "linear prediction": (
        lambda r: torch.cat([x.flatten(1) for x in levinson_recursion(r)], 1),
        lambda b, n: (autocorrelations(b, n, 6),),
    ),
    "Fourier transforms": (there_and_back, lambda b, n: (torch.randn(b, 8 * n + 6),)),
    "windows": (lambda x: x.unfold(2, 3, 1).square(), lambda b, n: (torch.randn(b, 4, n + 2),)),
    "causal convolution": (CausalConv(3, 4, 3, dilation=2), lambda b, n: (torch.randn(b, n, 3),)),
    "float64": (nn.Conv1d(2, 3, 3).double(), lambda b, n: (torch.randn(b, 2, n + 3).double(),)),
    "strided": (nn.Conv1d(2, 3, 3, stride=2, padding=1), lambda b, n: (torch.randn(b, 2, 2 * n + 2),)),
    "float64, almost one": (
        lambda x: nn.functional.leaky_relu(x * (1.0 + 1e-7) + 1e-11, 0.1),
        lambda b, n: (torch.randn(b, n).double(),),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operators_in_onnx(name):
    function, arguments = CASES[name]
    batch = torch.export.Dim("batch")
    length = torch.export.Dim("length")
    example = arguments(2, 4)
    longer = arguments(2, 5)
    shapes = []
    for one, other in zip(example, longer, strict=True):
        growth = {axis: other.shape[axis] - size for axis, size in enumerate(one.shape)}
        shapes.append(
            {0: batch} | {axis: step * length + one.shape[axis] - 4 * step for axis, step in growth.items() if step}
        )
    program = torch.export.export(Call(function), example, dynamic_shapes=(tuple(shapes),), strict=False)
    with export.quiet():
        content = export.onnx_model(program, {}, ["audio"], half=False).SerializeToString()
    assert b"DFT" not in content, "the runtime's transform is slow"
    session = session_of(content)
    for b, n in ((1, 1), (3, 6)):
        values = arguments(b, n)
        expected = function(*values).detach()
        inputs = {entry.name: value.numpy() for entry, value in zip(session.get_inputs(), values, strict=True)}
        atol = 1e-12 if expected.dtype == torch.float64 else 2e-6
        np.testing.assert_allclose(session.run(None, inputs)[0], expected.numpy(), rtol=1e-12, atol=atol)


@pytest.mark.parametrize("size", [2, 6, 24, 256])
def test_matrices_of_the_fourier_transform(size):
    a, b = onnx_fourier.split_length(size)
    first, second = onnx_fourier.forward_matrices(size)
    assert a * b == size and first.shape == (2 * a, a) and second.shape == (a, 2 * b, b)
    x = np.random.default_rng(0).standard_normal(size)
    bins = ((first @ x.reshape(a, b)).reshape(a, 1, 2 * b) @ second).reshape(a, 2, b // 2)  # r, part, q
    real, other = bins.transpose(1, 2, 0).reshape(2, -1)
    expected = np.fft.rfft(x)
    np.testing.assert_allclose(np.append(real, other[0]), expected.real, atol=1e-11)
    np.testing.assert_allclose(other[1:], expected.imag[1:-1], atol=1e-11)
    back, of_bins = onnx_fourier.inverse_matrices(size)
    np.testing.assert_allclose(back @ (bins.reshape(a, 1, b) @ of_bins).reshape(2 * a, b), x.reshape(a, b), atol=1e-11)


# ---- without torch


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"centered": True},
        {"mel_scale": "htk", "norm": None},
        {"power": 2.0, "win_length": 200},
        {"f_min": 60.0, "f_max": 3000.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("seconds", [0.01, 0.5])
def test_the_scripts_mel_is_ours(script, options, seconds):
    config = MelConfig(**{**to_dict(MEL), **options})
    audio = speech_like(seconds)
    ours = LogMelSpectrogram(config)(audio).numpy()
    theirs = script.log_mel(audio.numpy(), to_dict(config))
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=2e-3)
    assert np.abs(theirs - ours).mean() < 1e-5


def run_script(*arguments: object) -> subprocess.CompletedProcess:
    """The script in a process where importing torch or wavedistill fails."""
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['wavedistill'] = None\n"
        f"sys.argv = {[str(SCRIPT), *map(str, arguments)]!r}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.slow
def test_the_script_speaks_without_torch(voice, tmp_path):
    model, path = voice
    audio = speech_like(0.31).numpy()
    soundfile.write(tmp_path / "in.wav", audio, 8000, subtype="FLOAT")
    done = run_script(
        path, tmp_path / "in.wav", tmp_path / "out.wav", "--seed", 3, "--temperature", 0.5, "--speaker", "bob"
    )
    assert done.returncode == 0, done.stderr
    speech, rate = soundfile.read(tmp_path / "out.wav")
    mel = LogMelSpectrogram(MEL)(torch.from_numpy(audio)).unsqueeze(0)
    noise = np.random.default_rng(3).standard_normal((1, 1, mel.shape[-1] * 64), dtype=np.float32)
    expected = model.sample(mel, noise=torch.from_numpy(noise), temperature=0.5, speaker=torch.tensor([1]))
    assert rate == 8000 and len(speech) == len(audio)
    np.testing.assert_allclose(speech, expected[0, 0, : len(audio)].numpy(), rtol=0, atol=2e-4)

    np.save(tmp_path / "mel.npy", mel[0].numpy())
    assert (
        run_script(
            path, tmp_path / "mel.npy", tmp_path / "of_mel.wav", "--seed", 3, "--temperature", 0.5, "--speaker", "1"
        ).returncode
        == 0
    )
    of_mel, _ = soundfile.read(tmp_path / "of_mel.wav")
    assert len(of_mel) == mel.shape[-1] * 64
    np.testing.assert_allclose(of_mel[: len(speech)], speech, rtol=0, atol=2e-4)


@pytest.mark.slow
def test_the_script_says_what_is_wrong(voice, unconditional, tmp_path):
    soundfile.write(tmp_path / "in.wav", speech_like(0.1).numpy(), 16000)
    np.save(tmp_path / "turned.npy", np.zeros((9, 20), np.float32))
    for arguments, message in (
        ((voice[1], tmp_path / "in.wav"), "needed is speech at 8000 Hz: ffmpeg"),
        ((voice[1], tmp_path / "turned.npy"), "the mel's shape is (9, 20); needed is (20, frames)"),
        ((voice[1], tmp_path / "in.wav", "--speaker", "eve"), "there is no speaker eve: give 0..1 or one of ada, bob"),
        ((unconditional[1] / "one.onnx", tmp_path / "in.wav"), "takes no mel"),
    ):
        done = run_script(arguments[0], arguments[1], tmp_path / "out.wav", *arguments[2:])
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out.wav").exists()


# ---- what cannot be


def test_teachers_and_flows_are_refused(tmp_path):
    with pytest.raises(
        WavedistillError, match="a teacher cannot be exported: it makes one sample after another.*wavedistill distill"
    ):
        export_model(tiny_teacher(), tmp_path / "teacher.onnx")
    with pytest.raises(WavedistillError, match="only students can be exported, and this is a one-stage flow"):
        export_model(tiny_flow(), tmp_path / "flow.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("parts", [{"source_order": 0}, {"front": FRONTS["sub-bands"]}])
def test_onnx_has_transforms_of_even_length(tmp_path, parts):
    model = student(mel=dataclasses.replace(MEL, n_fft=MEL.n_fft + 1), **parts)
    told = f"this student's mel has n_fft {MEL.n_fft + 1}: export it for torch .file.pt2., or train one"
    with pytest.raises(WavedistillError, match=told):
        export_model(model, tmp_path / "voice.onnx")
    with pytest.raises(WavedistillError, match=told):
        export_stream(model, tmp_path / "stream")
    assert not list(tmp_path.iterdir())


def test_the_format_must_be_told(tmp_path, capsys):
    with pytest.raises(
        WavedistillError, match=r"voice.bin tells no format: end its name in .onnx or .pt2, or give the format"
    ):
        export_model(tiny_student(), tmp_path / "voice.bin")
    with pytest.raises(WavedistillError, match="weights in float16 are for ONNX files: leave half out"):
        export_model(tiny_student(), tmp_path / "voice.pt2", half=True)
    with pytest.raises(WavedistillError, match="no format 'tflite': give onnx or torch"):
        export_model(tiny_student(), tmp_path / "voice.onnx", "tflite")
    assert cli.main(["export", "speech-teacher", "--out", str(tmp_path / "a.onnx")]) == 2
    assert capsys.readouterr().err.startswith("error: a teacher cannot be exported")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "onnxscript":
            raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WavedistillError, match=r"ONNX files need onnxscript.*pip install 'wavedistill\[onnx\]'"):
        export_model(tiny_student(), tmp_path / "voice.onnx")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(export, "_traced", lambda model: None)
    monkeypatch.setattr(export, "_torch", lambda program, values: b"")
    with pytest.raises(WavedistillError, match="cannot write .*Give a folder you can write to"):
        export_model(tiny_student(), tmp_path / "file" / "voice.pt2")
