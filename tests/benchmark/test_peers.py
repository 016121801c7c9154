"""The other vocoders: the published sizes, and what is said where one is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from wavedistill.benchmark import peers

WEIGHTS = {  # millions: Kong et al., 2020, table 1; the papers' code and configurations for the others
    "HiFi-GAN V1": 13.92,
    "HiFi-GAN V2": 0.92,
    "HiFi-GAN V3": 1.46,
    "Parallel WaveGAN": 1.33,
    "Vocos": 13.5,
    "ClariNet student, plain": 5.2,
}


@pytest.mark.parametrize("build", ["vocos", "parallel_wavegan", "clarinet"])
def test_peers_have_the_published_size_and_make_audio(build):
    try:
        voices = list(getattr(peers, build)())
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


def test_vocos_in_real_numbers_is_vocos():
    """What is exported, and what onnxruntime makes of it, is the voice that torch runs."""
    pytest.importorskip("vocos")
    pytest.importorskip("onnxruntime")
    ours, exported = peers.vocos()
    backbone, head = ours.module
    mel = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 100, 9)).astype(np.float32))
    with torch.inference_mode():
        hidden = backbone(mel)
        torch.testing.assert_close(peers.RealHead(head)(hidden), head(hidden), atol=1e-6, rtol=1e-4)
        expected = ours.module(torch.randn(2, 100, 5, generator=torch.Generator().manual_seed(0)))
    np.testing.assert_allclose(exported.prepare(2, 4, "cpu")(), expected.numpy(), atol=1e-5, rtol=0)


def test_clarinet_student_is_autoregressive_in_its_noise():
    torch.manual_seed(0)
    flow = peers.PlainFlow(layers=3)
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


def test_missing_peers_are_a_line_not_an_error(monkeypatch):
    for name in ("vocos.heads", "vocos.models", "parallel_wavegan.models"):
        monkeypatch.setitem(sys.modules, name, None)
    voices, missing = peers.installed_vocoders()
    assert [voice.name.split()[0] for voice in voices] == ["ClariNet", "6"]
    assert len(missing) == 2 and "pip install vocos" in missing[0] and "--no-deps" in missing[1]
