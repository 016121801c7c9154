"""Invertible transforms and the flows made of them."""

from wavedistill.flows.autoregressive import AutoregressiveFlow, Condition
from wavedistill.flows.adapter import TorchTransform
from wavedistill.flows.dequantization import Dequantize
from wavedistill.flows.elementwise import Logit, PreEmphasis, Rescale, Scale
from wavedistill.flows.flow import Flow, Likelihood, StandardNormal, StandardUniform
from wavedistill.flows.linear_prediction import LinearPredictionFlow, LinearPredictor, MelLinearPredictor
from wavedistill.flows.transform import Compose, Inverse, Mapped, Transform

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
