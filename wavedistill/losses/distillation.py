"""What a student is trained to minimise: named terms, each with a weight, each logged under its name.

    kl                KL(student || teacher) per sample: closed form for a Gaussian teacher, Monte Carlo for a mixture
    regularizer       squared difference of the log-scales, which keeps the gradient alive where scales sit on the floor
    stft              multi-resolution STFT distance to the recording of what is heard, after the contraction to the
                      mel where the model has one: spectral convergence + log-magnitude
    mel               distance of the log-mel spectrogram of the flows' own audio from the one they were given
    pitch             cross-entropy of the pitch predictor against measured F0 (models with a harmonic source)
    adversarial       squared distance of the discriminators' scores of what is heard from those of recordings
    feature_matching  distance to the recording in the discriminators' hidden layers
    contrastive       minus the divergence from the teacher under another clip's condition (Parallel WaveNet, eq. 9)
    instructive       distance to the recording when the student is fed the noise that the teacher encodes it to

adversarial and feature_matching are for a last stage, from a trained student's weights (``run.init_from``).

References:
    Parallel WaveNet (van den Oord et al., 2017), https://arxiv.org/abs/1711.10433; the others stand with the terms, in
    `wavedistill.losses.divergence`, `wavedistill.losses.spectral` and `wavedistill.losses.adversarial`
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.distributions import Gaussian
from wavedistill.errors import WavedistillError, check_number
from wavedistill.losses.adversarial import (
    Crops,
    adversarial_distance,
    discriminator_loss,
    feature_distance,
    random_crops,
)
from wavedistill.losses.divergence import (
    Divergence,
    contrastive_divergence,
    divergence,
    first_clips,
    first_counted,
    instructive_distance,
)
from wavedistill.losses.spectral import MultiResolutionSTFT
from wavedistill.models.parallel_wavenet import ParallelWaveNet, StudentOutput
from wavedistill.models.wavenet import WaveNet
from wavedistill.nn.discriminators import DiscriminatorConfig, Discriminators, Judgement


@dataclass
class DistillationConfig:
    """Weights and settings of the distillation loss.

    Attributes:
        weights: weight of each term by name; a term that is left out is not computed.
        log_scale_floor: both log-scales are floored here inside the KL (in the front's domain, where speech has unit
            variance).
        kl_share: share of each batch on which the teacher is asked for kl and regularizer (rounded up to whole clips):
            the teacher is most of a step's cost, and a part of the batch estimates the same mean.
        kl_clip, kl_clip_steps: during the first steps each sample's KL counts at most this many nats.
        monte_carlo_samples: draws per sample for a mixture-of-logistics teacher.
        allow_weak_teacher: distil even from a teacher that codes held-out speech worse than linear prediction.
        discriminator: of the terms adversarial and feature_matching; built where one of them is there.
    """

    weights: dict[str, float] = field(
        default_factory=lambda: {"kl": 0.5, "regularizer": 2.0, "stft": 1.0, "mel": 1.0, "pitch": 1.0}
    )
    log_scale_floor: float = -7.0
    kl_share: float = 1.0
    kl_clip: float = 20.0
    kl_clip_steps: int = 1000
    monte_carlo_samples: int = 4
    allow_weak_teacher: bool = False
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        for name in self.weights:
            if name not in TERMS:
                raise WavedistillError(f"loss.weights: unknown term '{name}'. Known terms: {', '.join(TERMS)}.")
            check_number(f"loss.weights.{name}", self.weights[name])
        check_number("loss.kl_clip", self.kl_clip, above=True)
        check_number("loss.kl_clip_steps", self.kl_clip_steps)
        check_number("loss.monte_carlo_samples", self.monte_carlo_samples, 1)
        check_number("loss.log_scale_floor", self.log_scale_floor, -100.0, 100.0)
        if not 0.0 < self.kl_share <= 1.0:
            raise WavedistillError(f"loss.kl_share must be above 0 and at most 1, got {self.kl_share:g}.")


@dataclass
class Pass:
    """One pass of the student over a batch, and what teacher and discriminators say of it: terms are functions of it.

    Shapes: audio (batch, 1, samples), mel (batch, n_mels, frames), speaker (batch,), f0 (batch, frames).
    """

    loss: DistillationLoss
    student: ParallelWaveNet
    output: StudentOutput
    audio: Tensor
    mel: Tensor | None
    speaker: Tensor | None
    f0: Tensor | None
    step: int
    _heard: Tensor | None = None
    _divergence: Divergence | None = None
    _crops: Crops | None = None
    _judged: Judgement | None = None

    @property
    def divergence(self) -> Divergence:
        """From the teacher, on the share of the batch that it is asked about; computed once."""
        if self._divergence is None:
            config = self.loss.config
            teacher = self.loss.teacher
            asked = math.ceil(config.kl_share * len(self.audio))
            self._divergence = divergence(
                teacher,
                StudentOutput(*(first_clips(value, asked) for value in self.output)),
                first_clips(self.mel, asked),
                first_clips(self.speaker, asked),
                skip=first_counted(self.student, teacher, self.output.loc.shape[1]),
                log_scale_floor=config.log_scale_floor,
                num_draws=config.monte_carlo_samples,
            )
        return self._divergence

    @property
    def heard(self) -> Tensor:
        """The student's finished waveform, after the contraction to the mel; computed once."""
        if self._heard is None:
            self._heard = self.student.contracted(self.output.audio, self.mel)
        return self._heard

    @property
    def crops(self) -> Crops:
        """What the discriminators see; drawn once."""
        if self._crops is None:
            self._crops = random_crops(self.heard[:, 0], self.audio[:, 0], self.loss.crop_length)
        return self._crops

    @property
    def judged(self) -> Judgement:
        """What the discriminators say of the student's audio; asked once."""
        if self._judged is None:
            self._judged = self.loss.discriminators(self.crops.made)
        return self._judged

    def full_precision(self) -> torch.autocast:
        """Spectra are taken in float32, whatever the precision of the run."""
        return torch.autocast(self.audio.device.type, enabled=False)


def _kl(p: Pass) -> Tensor:
    config = p.loss.config
    kl = p.divergence.kl
    if p.step < config.kl_clip_steps and isinstance(p.loss.teacher.distribution, Gaussian):
        kl = kl.clamp_max(config.kl_clip)
    return kl.mean()


def _regularizer(p: Pass) -> Tensor:
    return p.divergence.regularizer


def _stft(p: Pass) -> Tensor:
    with p.full_precision():
        return p.loss.stft(p.heard[:, 0], p.audio[:, 0])


def _mel(p: Pass) -> Tensor:
    with p.full_precision():
        own = p.loss.mel(p.output.audio[:, 0])[..., : p.mel.shape[-1]]  # centred frames are one more
        return (own - p.mel).abs().mean()


def _pitch(p: Pass) -> Tensor:
    with p.full_precision():
        return p.student.pitch.loss(p.output.pitch_logits, p.f0)


def _adversarial(p: Pass) -> Tensor:
    return adversarial_distance(p.judged.scores)


def _feature_matching(p: Pass) -> Tensor:
    ours = p.judged.features
    with torch.no_grad():
        theirs = p.loss.discriminators(p.crops.real).features
    return feature_distance(ours, theirs)


def _contrastive(p: Pass) -> Tensor:
    return contrastive_divergence(p.loss.teacher, p.output, p.mel, p.speaker, limit=p.loss.config.kl_clip)


def _instructive(p: Pass) -> Tensor:
    return instructive_distance(p.student, p.loss.teacher, p.audio, p.mel, p.speaker)


TERMS: dict[str, Callable[[Pass], Tensor]] = {
    "kl": _kl,
    "regularizer": _regularizer,
    "stft": _stft,
    "mel": _mel,
    "pitch": _pitch,
    "adversarial": _adversarial,
    "feature_matching": _feature_matching,
    "contrastive": _contrastive,
    "instructive": _instructive,
}
"""Every term by the name under which it is weighted and logged, in the order in which they are computed."""
DIVERGENCE_TERMS = ("kl", "regularizer")
ADVERSARIAL_TERMS = ("adversarial", "feature_matching")


class DistillationLoss(nn.Module):
    """Weighted sum of the terms, and diagnostics that show what a falling loss can hide.

    ``discriminators`` (None without an adversarial term) are frozen but for their own step, which `discriminate`
    serves.

    Diagnostics: ``kl_nats`` the divergence without clipping or regularizer, ``entropy`` of the student in nats per
    sample of audio, ``floor_share`` of samples on the log-scale floor, ``amplitude_std`` and ``amplitude_mean`` of the
    student's audio, ``real_std`` and ``real_mean`` of the recording's. Of the terms kl and regularizer, one is logged
    with the other.
    """

    def __init__(self, config: DistillationConfig, student: ParallelWaveNet, teacher: WaveNet) -> None:
        super().__init__()
        _check_terms(config, student, teacher)
        self.config = config
        self.teacher = teacher
        self.crop_length = round(config.discriminator.segment_seconds * student.sample_rate)
        names = set(config.weights)
        self.stft = MultiResolutionSTFT(student.sample_rate) if "stft" in names else None
        self.mel = LogMelSpectrogram(student.config.mel) if "mel" in names else None
        self.discriminators: Discriminators | None = None
        if names.intersection(ADVERSARIAL_TERMS):
            self.discriminators = Discriminators(config.discriminator, student.sample_rate).requires_grad_(False)
        self._asks_teacher = bool(names.intersection(DIVERGENCE_TERMS))
        if self._asks_teacher and isinstance(teacher.distribution, Gaussian):
            names.update(DIVERGENCE_TERMS)
        self._terms = {name: term for name, term in TERMS.items() if name in names}

    def forward(
        self,
        student: ParallelWaveNet,
        audio: Tensor,
        mel: Tensor | None,
        speaker: Tensor | None,
        f0: Tensor | None,
        step: int,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch of recordings.

        Shapes: audio (batch, 1, samples), mel (batch, n_mels, frames), speaker (batch,), f0 (batch, frames) -> scalar,
        named scalars.
        """
        noise = torch.randn(audio.shape, device=audio.device)
        p = Pass(self, student, student.rsample(noise, mel, speaker), audio, mel, speaker, f0, step)
        terms = {name: term(p) for name, term in self._terms.items()}
        loss = sum(weight * terms[name] for name, weight in self.config.weights.items())
        return loss, {name: value.detach() for name, value in terms.items()} | self._diagnose(p)

    def discriminate(
        self, student: ParallelWaveNet, audio: Tensor, mel: Tensor | None, speaker: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the discriminators minimise on a batch, and named scalars: `discriminator_loss`.

        Shapes: as in `forward`. The student's audio is made without gradient, from the noise that `forward` draws from
        the same seed.
        """
        with torch.no_grad():
            made = student.rsample(torch.randn(audio.shape, device=audio.device), mel, speaker, in_pieces=True).audio
            made = student.contracted(made, mel)
        return discriminator_loss(self.discriminators, random_crops(made[:, 0], audio[:, 0], self.crop_length))

    @torch.no_grad()
    def _diagnose(self, p: Pass) -> dict[str, Tensor]:
        output = p.output
        slope = p.student.front.log_slope(output.loc, output.lpc)
        values = {
            "entropy": Gaussian.entropy(output.log_scale - slope).mean(),
            "floor_share": (output.log_scale <= self.config.log_scale_floor).float().mean(),
            "amplitude_mean": output.audio.mean(),
            "amplitude_std": output.audio.std(),
            "real_mean": p.audio.mean(),
            "real_std": p.audio.std(),
        }
        return values | {"kl_nats": p.divergence.kl.mean()} if self._asks_teacher else values


def _check_terms(config: DistillationConfig, student: ParallelWaveNet, teacher: WaveNet) -> None:
    """Refuse terms that these models cannot give."""
    weights = config.weights
    if student.config.front != teacher.config.front or student.config.mel != teacher.config.mel:
        raise WavedistillError(
            "the student's front and mel settings must be the teacher's: copy them into the recipe's model."
        )
    if not isinstance(teacher.distribution, Gaussian):
        wrong = {"regularizer", "instructive", "contrastive"} & weights.keys()
        if teacher.config.distribution == "mulaw" or wrong:
            raise WavedistillError(
                f"a '{teacher.config.distribution}' teacher cannot give the terms "
                f"{', '.join(sorted(wrong | {'kl'}))}: use a gaussian teacher (or, with 'mol', leave these terms out "
                "except kl)."
            )
    if ("mel" in weights and student.config.mel is None) or ("pitch" in weights and student.pitch is None):
        raise WavedistillError(
            "loss.weights: 'mel' needs a mel-conditioned student and 'pitch' one with source_order above 0."
        )
