"""Invertible transforms and the flows made of them."""

from wavedistill.flows.autoregressive import AutoregressiveFlow, Condition
from wavedistill.flows.elementwise import PreEmphasis, Scale
from wavedistill.flows.linear_prediction import LinearPredictionFlow, LinearPredictor, MelLinearPredictor
from wavedistill.flows.transform import Compose, Flow, Inverse, Mapped, Transform

__all__ = [
    "AutoregressiveFlow",
    "Compose",
    "Condition",
    "Flow",
    "Inverse",
    "LinearPredictionFlow",
    "LinearPredictor",
    "Mapped",
    "MelLinearPredictor",
    "PreEmphasis",
    "Scale",
    "Transform",
]
