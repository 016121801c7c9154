"""The student's condition from pieces of a mel: that of the whole, stage by stage and in all."""

from __future__ import annotations

import pytest
import torch
from helpers.chunks import random_lengths
from helpers.tiny_models import FRONTS, MEL, tiny_student

from wavedistill.nn.mel_encoder import extended

FRAMES = 29


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.randn(2, MEL.n_mels, FRAMES, generator=torch.Generator().manual_seed(0)) - 4


@pytest.mark.parametrize("stage", ["conditioning", "pitch", "front.predictor"])
def test_each_stage_is_the_same_for_any_pieces(stage, mel):
    module = tiny_student(front=FRONTS["sub-bands"]).get_submodule(stage)
    edges = getattr(module, "context_frames", 1)
    speaker = (None,) if stage == "conditioning" else ()
    for seed in range(3):
        state = module.stream_state()
        continued = extended(mel, edges)
        lengths = [2 * edges + 1, *random_lengths(FRAMES - 1, 5, seed)]
        with torch.no_grad():
            pieces = [module.step(piece, *speaker, state) for piece in continued.split(lengths, 2)]
            whole = module(mel, *speaker)
        if stage == "front.predictor":
            pieces, whole = [piece.coefficients for piece in pieces], whole.coefficients
        torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("low_latency", [False, True])
@pytest.mark.parametrize("front", FRONTS)
def test_in_all_it_is_the_same_for_any_pieces(front, low_latency, mel):
    model = tiny_student(front=FRONTS[front])

    def pushed(lengths: list[int]) -> torch.Tensor:
        stream = model._condition_stream(low_latency)
        continued = torch.nn.functional.pad(mel, (stream.before, stream.after), mode="replicate")
        parts = [stream.before + lengths[0] + stream.after, *lengths[1:]]
        with torch.no_grad():
            found = [stream.push(part, None, False) for part in continued.split(parts, 2)]
        return torch.cat([part.flows.source for part in found], 1)

    whole = pushed([FRAMES])
    assert whole.shape == (2, FRAMES * MEL.hop_length)
    for seed in range(2):
        torch.testing.assert_close(pushed(random_lengths(FRAMES, 6, seed)), whole, atol=1e-5, rtol=1e-4)


def test_low_latency_waits_for_less_and_hears_nearly_the_same_pitch(mel):
    model = tiny_student(front=FRONTS["sub-bands"])
    assert model.look_ahead(low_latency=True)["in all"] < 0.5 * model.look_ahead()["in all"]
    predictor = model.pitch
    prompt = predictor.prompt_step(torch.nn.functional.pad(mel, (4, 1), mode="replicate"), predictor.prompt_state())
    assert prompt.shape == predictor(mel).shape
    steady = mel[..., :1].expand(-1, -1, FRAMES)
    continued = torch.nn.functional.pad(steady, (4, 1), mode="replicate")
    torch.testing.assert_close(predictor.prompt_step(continued, predictor.prompt_state()), predictor(steady))
