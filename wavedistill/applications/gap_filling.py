"""Lost samples drawn anew by a teacher, given the sound on both sides of the gap.

The teacher draws candidates c_1 ... c_N for the gap from p(gap | left), and each is weighed by how well the sound after
the gap follows from it (self-normalised importance sampling):

    w_i = p(right | left, c_i) / sum over j of p(right | left, c_j),    effective sample size = 1 / sum over i of w_i^2

One candidate, drawn by its weight, is a sample of p(gap | left, right), the better the larger N. The teacher's memory
ends, so that only as much of both sides is looked at as it reaches. Everything is the density before the teacher's
contraction towards the mel, whose fixed point a recording is.

The log-mel condition of the gap is unknown. It is taken from the sound with linear prediction from both sides in the
gap.

A teacher that draws blocks of samples begins with the gap: the mel's frames are counted from a place that makes it so.
At the gap's other end it draws up to 7 samples too many. The known ones are put back, and

    w_i ~ p(last block with the known samples, right | ...) / p(last block as drawn | ...)

which is importance sampling of the drawn samples and the ones put back together.

References:
    Monte Carlo Statistical Methods (Robert and Casella, 2004), chapter 3: importance sampling
    A Note on Importance Sampling Using Standardized Weights (Kong, 1992): effective sample size
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavedistill.applications.extrapolation import CONTEXT, bridge
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import Clip, LoadedModel
from wavedistill.models.base import dequantized
from wavedistill.models.wavenet import WaveNet

SHORTEST = 0.001
LONGEST = 0.2
"""Seconds of a gap. Measured are 20 to 120 ms; what a longer one held, its surroundings hardly tell."""

Gap = tuple[float, float]
"""Start and end, in seconds."""


@dataclass(frozen=True)
class RestoreConfig:
    """How gaps are filled.

    Attributes:
        candidates: drawn for each gap, at least 1.
        seed: of the candidates and of the draw among them.
    """

    candidates: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise WavedistillError(f"a gap needs 1 candidate or more, given {self.candidates}")


class Filling(NamedTuple):
    """What was put into one gap.

    Attributes:
        start, stop: the gap's first sample and the one after its last.
        candidates: (candidates, samples).
        weights: of the candidates, (candidates,), sum 1.
        chosen: number of the candidate that was drawn by its weight.
    """

    start: int
    stop: int
    candidates: Tensor
    weights: Tensor
    chosen: int

    @property
    def effective_size(self) -> float:
        """Candidates that as many equally weighted ones would be worth: 1 (one outweighs all) to their number."""
        return float(1.0 / self.weights.square().sum())

    def band(self, share: float = 0.9) -> tuple[Tensor, Tensor]:
        """Lower and upper end, (samples,) each, of the central interval that holds this share of the candidates.

        All count alike: it is the band of what could follow on the sound before the gap. By weight it would mostly be
        one candidate wide. Quantiles are those at which n candidates and the truth, were they alike, agree: rank
        p (n + 1); with few candidates the ends are the smallest and the largest.
        """
        edges = np.quantile(self.candidates.numpy(), [(1 - share) / 2, (1 + share) / 2], axis=0, method="weibull")
        low, high = torch.from_numpy(edges)
        return low, high


class Restored(NamedTuple):
    """What `restore_sound` makes: the audio (samples,), and how each gap was filled, from left to right."""

    audio: Tensor
    fillings: list[Filling]

    def with_candidate(self, number: int) -> Tensor:
        """The audio (samples,) with candidate ``number`` in every gap."""
        audio = self.audio.clone()
        for filling in self.fillings:
            audio[filling.start : filling.stop] = filling.candidates[number]
        return audio


def check_teacher(loaded: LoadedModel) -> None:
    """Refuse a model that cannot continue a sound and tell the density of what follows."""
    if not isinstance(loaded.model, WaveNet):
        raise WavedistillError(
            f"restore needs a model that continues a sound: {loaded.name} is a {loaded.model.role_name}, give a teacher"
        )


@torch.inference_mode()
def restore_sound(
    audio: Tensor,
    gaps: Sequence[Gap],
    loaded: LoadedModel,
    config: RestoreConfig | None = None,
    speaker: Tensor | None = None,
    *,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Restored:
    """Fill the gaps of a sound, each given what was put into those before it.

    Args:
        audio: (samples,) at the model's rate; what stands in the gaps is not looked at.
        gaps: in any order; those that touch are one.
        loaded: a teacher.
        config: None: `RestoreConfig()`.
        speaker: index (1,), for a teacher with speakers.
        progress: wraps the iterable of gaps.

    Returns:
        the audio, in which all samples outside the gaps are those given, bit for bit.

    Raises:
        WavedistillError: no teacher, or gaps outside the sound, too short or too long.
    """
    check_teacher(loaded)
    config = config or RestoreConfig()
    spans = gap_samples(gaps, len(audio), loaded.model.sample_rate)
    teacher = copy.deepcopy(loaded.model)
    teacher.contraction = None
    audio = audio.clone()
    for start, stop in spans:
        audio[start:stop] = 0.0
    fillings = []
    for number in progress(range(len(spans))):
        start, stop = spans[number]
        made = _fill(audio, spans[number:], teacher, loaded, config, speaker)
        audio[start:stop] = made.candidates[made.chosen]
        fillings.append(made)
    return Restored(audio, fillings)


def gap_samples(gaps: Sequence[Gap], samples: int, sample_rate: int) -> list[tuple[int, int]]:
    """First sample and the one after the last of each gap, sorted; those that touch are one.

    Raises:
        WavedistillError: none, one outside the sound, one that is no gap, too short or too long.
    """
    if not gaps:
        raise WavedistillError("no gaps given: say from where to where the sound is lost, in seconds")
    seconds = samples / sample_rate
    spans: list[list[int]] = []
    for start, end in sorted(gaps):
        if not 0 <= start < end <= seconds:
            raise WavedistillError(f"the gap {start:g}-{end:g} does not lie in the sound, which lasts {seconds:.3f} s")
        first, stop = round(start * sample_rate), round(end * sample_rate)
        if spans and first <= spans[-1][1]:
            spans[-1][1] = max(stop, spans[-1][1])
        else:
            spans.append([first, stop])
    for first, stop in spans:
        if not SHORTEST <= (length := (stop - first) / sample_rate) <= LONGEST:
            raise WavedistillError(
                f"the gap {first / sample_rate:g}-{stop / sample_rate:g} lasts {1000 * length:g} ms: "
                f"{1000 * SHORTEST:g} to {1000 * LONGEST:g} ms are filled (gaps that touch are one)"
            )
    return [(first, stop) for first, stop in spans]


def gap_mel(audio: Tensor, spans: Sequence[tuple[int, int]], loaded: LoadedModel) -> Tensor:
    """The log-mel (n_mels, frames) of a sound (samples,) with linear prediction from both sides in the spans."""
    audio = audio.clone()
    ends = [start for start, _ in spans[1:]] + [None]
    for (start, stop), until in zip(spans, ends, strict=True):
        audio[start:stop] = bridge(audio, start, stop, until)
    return loaded.mel(Clip("", "", audio))[0]


def _fill(
    audio: Tensor,
    spans: Sequence[tuple[int, int]],
    teacher: WaveNet,
    loaded: LoadedModel,
    config: RestoreConfig,
    speaker: Tensor | None,
) -> Filling:
    """Fill the first of the spans; the others are unknown still."""
    start, stop = spans[0]
    step, hop = teacher.step_size, teacher.hop_length
    skipped = start % step  # so that a block begins with the gap
    reach = teacher.receptive_field + teacher.front.history
    context = teacher.conditioning.context_frames
    end = min(len(audio), stop + reach, *(first for first, _ in spans[1:]))  # of what is weighed
    first_frame = max(0, (start - skipped - reach) // hop - context)
    offset = skipped + first_frame * hop  # of the window
    drawn_frames = -(-(stop - offset) // hop) + context
    weighed_frames = -(-(end - offset) // hop) + context
    mel = _window_mel(audio, spans, loaded, offset, weighed_frames)[None].to(teacher.device)
    mel = torch.cat([mel, mel[..., -1:].expand(-1, -1, weighed_frames - mel.shape[-1])], dim=-1)

    window = torch.zeros(weighed_frames * hop)
    known = dequantized(audio)[offset : offset + len(window)]
    window[: len(known)] = known
    window = window.to(teacher.device)
    begin, close = start - offset, stop - offset
    count = config.candidates
    voice = None if speaker is None else speaker.expand(count)
    drawn = teacher.sample(
        mel[..., :drawn_frames].expand(count, -1, -1),
        seed=[config.seed + 1_000_003 * start + n for n in range(count)],  # far apart: gaps share no noise
        prime=window[None, None, :begin].expand(count, -1, -1),
        speaker=voice,
    )
    log_weights = _log_weights(teacher, window, drawn, mel, voice, (begin, close, end - offset))
    weights = log_weights.softmax(0).cpu()
    generator = torch.Generator().manual_seed(config.seed + start)
    half_step = 0.5 / 32768  # by which the noise of `dequantized` lifts a sound
    candidates = (drawn[:, 0, begin:close].cpu() - half_step).clamp(-1.0, 1.0 - 2 * half_step)
    return Filling(start, stop, candidates, weights, int(torch.multinomial(weights, 1, generator=generator)))


def _window_mel(
    audio: Tensor, spans: Sequence[tuple[int, int]], loaded: LoadedModel, offset: int, frames: int
) -> Tensor:
    """`gap_mel` (n_mels, frames or fewer) of a part: frame 0 is that of sample ``offset``, and the sound may end."""
    settings = loaded.front_end.config
    hop = settings.hop_length
    around = max(settings.n_fft, CONTEXT)  # samples more on either side, so that no edge is seen
    before = min(offset // hop, -(-around // hop))
    begin = offset - before * hop
    piece = audio[begin : offset + frames * hop + around]
    near = [(start - begin, min(stop - begin, len(piece))) for start, stop in spans if start - begin < len(piece)]
    return gap_mel(piece, near, loaded)[:, before : before + frames]


def _log_weights(
    teacher: WaveNet, window: Tensor, drawn: Tensor, mel: Tensor, speaker: Tensor | None, edges: tuple[int, int, int]
) -> Tensor:
    """log w of each candidate up to a constant, (candidates,); all alike where nothing known follows.

    Args:
        window: (samples,), with zeros in the gap.
        drawn: (candidates, 1, samples), shorter.
        mel: (1, n_mels, frames) of the window.
        edges: in the window, where the gap begins, where it ends, and where what is weighed ends.
    """
    begin, close, end = edges
    step = teacher.step_size
    first, whole, last = close // step * step, -(-close // step) * step, end // step * step
    if last < whole:
        return torch.zeros(len(drawn), dtype=torch.float64, device=drawn.device)
    made = window.repeat(len(drawn), 1, 1)
    made[..., begin:close] = drawn[..., begin:close]
    log_weights = _log_prob(teacher, made, mel, speaker, first, last)
    if first < whole:
        made[..., close:whole] = drawn[..., close:whole]
        log_weights -= _log_prob(teacher, made, mel, speaker, first, whole)
    return log_weights


def _log_prob(teacher: WaveNet, waves: Tensor, mel: Tensor, speaker: Tensor | None, start: int, stop: int) -> Tensor:
    """log p of samples ``start`` to ``stop`` of waves (batch, 1, samples) given those before, in nats, (batch,)."""
    mel = mel.expand(len(waves), -1, -1)
    return teacher.log_prob_per_sample(waves, mel, speaker, dequantize=False)[:, start:stop].double().sum(1)
