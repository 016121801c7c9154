"""Mean opinion scores predicted without a reference: DistillMOS, DNSMOS, PLCMOS; the packages carry their weights."""

from __future__ import annotations

import contextlib
import io
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from wavedistill.metrics.packages import need_package
from wavedistill.metrics.waveforms import RATE, Waveform, at_16khz

_SHORTEST = RATE // 10


class Dnsmos(NamedTuple):
    """Overall quality (P.835) and the P.808 score, each 1 bad to 5 excellent."""

    dnsmos_ovrl: float
    dnsmos_p808: float


def distillmos(candidate: Waveform, sample_rate: int) -> float:
    """DistillMOS, 1 bad to 5 excellent; NaN for silence.

    It brings every clip to full scale, so that level does not count.

    References:
        Distillation and Pruning for Scalable Self-Supervised Representation-Based Speech Quality Assessment (Stahl and
            Gamper, 2025), https://arxiv.org/abs/2502.05356

    Args:
        candidate: waveform (samples,) in [-1, 1).
        sample_rate: Hz.
    """
    audio = _audible(candidate, sample_rate)
    if audio is None:
        return math.nan
    with torch.inference_mode():
        return float(_distillmos_model()(torch.from_numpy(audio)[None]))


def dnsmos(candidate: Waveform, sample_rate: int) -> Dnsmos:
    """DNSMOS OVRL (P.835) and P.808; NaN for silence. Clips below 9 s are repeated, as its authors' script does.

    References:
        DNSMOS P.835: A Non-Intrusive Perceptual Objective Speech Quality Metric (Reddy et al., 2022),
            https://arxiv.org/abs/2110.01763
        DNSMOS (Reddy et al., 2021), https://arxiv.org/abs/2010.15258

    Args:
        candidate: waveform (samples,) in [-1, 1).
        sample_rate: Hz.
    """
    audio = _audible(candidate, sample_rate)
    if audio is None:
        return Dnsmos(math.nan, math.nan)
    scores = _dnsmos_model()(audio, RATE, False)
    return Dnsmos(float(scores["ovrl_mos"]), float(scores["p808_mos"]))


def plcmos(candidate: Waveform, sample_rate: int) -> float:
    """PLCMOS v2, the quality of speech whose lost packets were concealed, 1 bad to 5 excellent; NaN for silence.

    The mean over 15 raters, as its authors take it; theirs are drawn anew at every call, these are always the same.

    References:
        PLCMOS: A Data-driven Non-intrusive Metric for the Evaluation of Packet Loss Concealment Algorithms (Diener et
            al., 2023), https://arxiv.org/abs/2305.15127

    Args:
        candidate: waveform (samples,) in [-1, 1).
        sample_rate: Hz.
    """
    audio = _audible(candidate, sample_rate)
    if audio is None:
        return math.nan
    model = _plcmos_model()
    features = model.stft_transform(audio).astype(np.float32)[None, None]
    raters = np.random.default_rng(0).standard_normal((15, 1, 64)).astype(np.float32)
    scores = [model.session.run(None, {"degraded_audio": features, "rater_embed": rater})[0] for rater in raters]
    return float(np.mean(scores))


def _audible(candidate: Waveform, sample_rate: int) -> np.ndarray | None:
    """float32 in [-1, 1] at 16 kHz; None where there is nothing to judge."""
    audio = np.clip(at_16khz(candidate, candidate, sample_rate)[0], -1.0, 1.0).astype(np.float32)
    return audio if len(audio) >= _SHORTEST and audio.any() else None


@lru_cache(maxsize=1)
def _distillmos_model() -> Any:
    package = need_package("distillmos")
    with contextlib.redirect_stdout(io.StringIO()):  # it announces where its weights lie
        return package.ConvTransformerSQAModel().eval()


@lru_cache(maxsize=1)
def _dnsmos_model() -> Any:
    package = need_package("speechmos.dnsmos")
    folder = Path(package.__file__).parent / "dnsmos_models"
    model = object.__new__(package.DNSMOS)  # its constructor makes sessions with the default options
    model.onnx_sess, model.p808_onnx_sess = (_session(folder / name) for name in ("sig_bak_ovr.onnx", "model_v8.onnx"))
    return model


@lru_cache(maxsize=1)
def _plcmos_model() -> Any:
    package = need_package("speechmos.plcmos")
    model = object.__new__(package.PLCMOS)  # as above
    model.session = _session(Path(package.__file__).parent / "plcmos_models" / "plcmos_v2.onnx")
    return model


def _session(path: Path) -> Any:
    """A network on one thread.

    onnxruntime's default of one spinning thread a core is 20 times slower on a busy machine.
    """
    runtime = need_package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(str(path), options)
