"""The other vocoders of ``benchmark/peers.py``: the published sizes, and what is said where one is missing."""

from __future__ import annotations

import runpy
import sys

import pytest
import torch
from helpers.paths import PACKAGE

from wavedistill.errors import WavedistillError

WEIGHTS = {  # millions: Kong et al., 2020, table 1; the papers' code and configurations for the others
    "HiFi-GAN V1": 13.92,
    "HiFi-GAN V2": 0.92,
    "HiFi-GAN V3": 1.46,
    "Parallel WaveGAN": 1.33,
    "Vocos": 13.5,
    "ClariNet student, plain": 5.2,
}


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(PACKAGE / "benchmark" / "peers.py"))


@pytest.mark.parametrize("build", ["vocos", "parallel_wavegan", "clarinet"])
def test_peers_have_the_published_size_and_make_audio(script, build):
    try:
        voices = list(script[build]())
    except ImportError as error:
        pytest.skip(f"{build}: {error}")
    for voice in voices:
        assert voice.group == "peer"
        if voice.name in WEIGHTS:
            assert voice.parameters / 1e6 == pytest.approx(WEIGHTS[voice.name], rel=0.02)
        with torch.inference_mode():
            audio = voice.prepare(2, 4, "cpu")()
        assert audio.shape[0] == 2 and audio.shape[-1] == 4 * voice.hop_length
        assert not any("weight_g" in name or "parametrizations" in name for name, _ in voice.module.named_parameters())


def test_clarinet_student_is_autoregressive_in_its_noise(script):
    torch.manual_seed(0)
    flow = script["PlainFlow"](layers=3)
    torch.nn.init.normal_(flow.head[-1].weight)
    z = torch.randn(1, 1, 64)
    condition = torch.randn(1, 80, 64)
    changed = z.clone()
    changed[..., 40] += 1.0
    with torch.no_grad():
        before = flow(z, condition)[0]
        after = flow(changed, condition)[0]
    different = (before != after)[0, 0].nonzero().flatten()
    assert different.min() == 41


def test_missing_peers_are_a_line_not_an_error(script, monkeypatch):
    for name in ("vocos.heads", "vocos.models", "parallel_wavegan.models"):
        monkeypatch.setitem(sys.modules, name, None)
    voices, missing = script["installed"]()
    assert [voice.name.split()[0] for voice in voices] == ["ClariNet", "6"]
    assert len(missing) == 2 and "pip install vocos" in missing[0] and "--no-deps" in missing[1]


def test_script_passes_what_was_typed_and_reports_errors(script, monkeypatch, capsys):
    given = {}

    def run_benchmark(*args, **kwargs):
        given.update(kwargs, args=args)
        raise WavedistillError("no such checkpoint")

    settings = script["main"].__globals__
    monkeypatch.setitem(settings, "run_benchmark", run_benchmark)
    monkeypatch.setitem(settings, "installed", lambda: ([], ["line"]))
    monkeypatch.setattr(
        sys, "argv", ["voices.py", "--student", "a", "--student", "b", "--device", "cuda", "--out", "o"]
    )
    assert script["main"]() == 2
    assert given["args"] == ("speech-teacher", ["a", "b"]) and given["devices"] == ["cuda"] and given["out"] == "o"
    assert given["missing"] == ["line"] and capsys.readouterr().err == "error: no such checkpoint\n"
