"""Contractions towards a mel."""

import torch
from helpers.flow_case import BACKWARD_INSIDE, Case

from wavedistill.audio.mel import MelConfig
from wavedistill.flows import MelContraction

HOP = 8
MEL = MelConfig(sample_rate=8000, n_fft=32, win_length=32, hop_length=HOP, n_mels=5, f_max=4000.0)
POWER = MelConfig(
    sample_rate=8000, n_fft=32, win_length=24, hop_length=HOP, n_mels=5, f_max=3000.0, power=2.0, centered=True
)
SEARCH = "the way back is a search whose length depends on the values"
EXEMPT = {
    "long": "its condition has a frame for every hop of samples; test_mel_contraction.py has long ones",
    "compile": SEARCH,
    "forward gpu": SEARCH,
    "cuda": BACKWARD_INSIDE,
}
REFUSES = {"forward vmap": "as one batch", "forward second_derivatives": "torch.func"}


def case(mel, scale):
    return Case(
        lambda: MelContraction(mel, steps=3, damping=0.6),
        (1, 4 * HOP),
        cond=lambda batch: 0.3 * torch.randn(batch, mel.n_mels, 4) + scale,
        events=[(1, HOP)],
        tolerance32=2e-5,
        tolerance64=1e-9,
        exempt=EXEMPT,
        refuses=REFUSES,
    )


CASES = {"mel-contraction": case(MEL, -3.5), "mel-contraction-power": case(POWER, -4.0)}
