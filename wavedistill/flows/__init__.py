"""Invertible transforms and the flows made of them."""

from wavedistill.flows.adapter import TorchTransform
from wavedistill.flows.autoregressive import AutoregressiveFlow, Condition
from wavedistill.flows.continuous import ContinuousFlow
from wavedistill.flows.convolution import CausalConvolution, CircularConvolution
from wavedistill.flows.coupling import AdditiveCoupling, AffineCoupling, SplineCoupling
from wavedistill.flows.dequantization import Dequantize
from wavedistill.flows.elementwise import Logit, PreEmphasis, Rescale, Scale
from wavedistill.flows.flow import Flow, Likelihood, StandardNormal, StandardUniform
from wavedistill.flows.gaussianization import GaussianizationFlow, MixtureCDF
from wavedistill.flows.lapped import LappedTransform
from wavedistill.flows.linear import InvertibleConv1x1, Orthogonal
from wavedistill.flows.linear_prediction import LPC, LinearPredictionFlow, MelLPC
from wavedistill.flows.long_term_prediction import LTP, LongTermPredictionFlow
from wavedistill.flows.mel_contraction import LogDetEstimate, MelContraction
from wavedistill.flows.normalization import ActNorm, InvertibleBatchNorm
from wavedistill.flows.permutation import LearnedPermutation, Permutation, Reverse
from wavedistill.flows.planar import Planar, Radial
from wavedistill.flows.rbig import fit_rbig
from wavedistill.flows.reshape import Split, Squeeze
from wavedistill.flows.residual import ResidualFlow
from wavedistill.flows.reversible import ReversibleSequence
from wavedistill.flows.solvers.inversion import Inversion, invert
from wavedistill.flows.solvers.rounding import ConditioningReport, IllConditionedWarning, check_conditioning
from wavedistill.flows.transform import Compose, Inverse, Mapped, Transform
from wavedistill.nn.coupling_net import NetworkConfig
from wavedistill.nn.made import MADE

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AutoregressiveFlow",
    "CausalConvolution",
    "CircularConvolution",
    "Compose",
    "Condition",
    "ConditioningReport",
    "ContinuousFlow",
    "Dequantize",
    "Flow",
    "GaussianizationFlow",
    "IllConditionedWarning",
    "Inverse",
    "Inversion",
    "InvertibleBatchNorm",
    "InvertibleConv1x1",
    "LappedTransform",
    "LearnedPermutation",
    "Likelihood",
    "LinearPredictionFlow",
    "LPC",
    "LogDetEstimate",
    "Logit",
    "LongTermPredictionFlow",
    "LTP",
    "Mapped",
    "MADE",
    "MelContraction",
    "MelLPC",
    "MixtureCDF",
    "NetworkConfig",
    "Orthogonal",
    "Permutation",
    "Planar",
    "PreEmphasis",
    "Radial",
    "Rescale",
    "ResidualFlow",
    "Reverse",
    "ReversibleSequence",
    "Scale",
    "SplineCoupling",
    "Split",
    "Squeeze",
    "StandardNormal",
    "StandardUniform",
    "TorchTransform",
    "Transform",
    "check_conditioning",
    "fit_rbig",
    "invert",
]
