"""Linear prediction, its coefficients given as a condition."""

from helpers.flow_case import Case
from helpers.tiny_models import MEL, speech_batch

from wavedistill.flows import LPC, LinearPredictionFlow, MelLPC


def predictor(batch):
    _, mel = speech_batch(batch, 2)
    coefficients, log_gain = MelLPC(MEL, order=8, upsample=2, white_noise=1e-3)(mel)
    return LPC(coefficients[:, :3], log_gain[:, :3])


CASES = {
    "linear-prediction": Case(
        LinearPredictionFlow,
        (1, 24),
        cond=predictor,
        triangular="lower",
        events=[],
        exempt={"long": "the check cannot lengthen a named tuple"},
    ),
}
