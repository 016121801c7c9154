"""What a student is trained to minimise: named terms, each with a weight, each logged under its name.

    kl           KL(student || teacher) per sample: closed form for a Gaussian teacher, Monte Carlo for a mixture of
    logistics
    regularizer  squared difference of the log-scales, which keeps the gradient alive where scales sit on the floor
    stft         multi-resolution STFT distance to the recording: spectral convergence + log-magnitude
    mel          distance of the student's own log-mel spectrogram from the one it was given
    contrastive  minus the divergence from the teacher under another clip's condition (Parallel WaveNet, equation 9)
    instructive  distance to the recording when the student is fed the very noise the teacher encodes it to
    pitch        cross-entropy of the pitch predictor against measured F0 (models with a harmonic source)
    adversarial  squared distance of the discriminators' scores from those they give recordings
    feature_matching  distance to the recording in the discriminators' hidden layers

The last two are for a last stage, from a trained student's weights (``run.init_from``).

References:
    Parallel WaveNet (van den Oord et al., 2017), https://arxiv.org/abs/1711.10433
    ClariNet (Ping et al., 2018), https://arxiv.org/abs/1807.07281, equations 5-7
    Parallel WaveGAN (Yamamoto et al., 2019), https://arxiv.org/abs/1910.11480, section 2.2
    HiFi-GAN (Kong et al., 2020), https://arxiv.org/abs/2010.05646, equations 1-4
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.distributions import Gaussian, gaussian_kl
from wavedistill.errors import WavedistillError
from wavedistill.flows.linear_prediction import LPC
from wavedistill.models.parallel_wavenet import ParallelWaveNet, StudentOutput
from wavedistill.models.wavenet import WaveNet
from wavedistill.nn.discriminators import DiscriminatorConfig, Discriminators

ADVERSARIAL_TERMS = ("adversarial", "feature_matching")
TERMS = ("kl", "regularizer", "stft", "mel", "contrastive", "instructive", "pitch", *ADVERSARIAL_TERMS)


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
        if not 0.0 < self.kl_share <= 1.0:
            raise WavedistillError(f"loss.kl_share must be above 0 and at most 1, got {self.kl_share:g}.")


class DistillationLoss(nn.Module):
    """Weighted sum of the terms, and diagnostics that show what a falling loss can hide.

    ``discriminators`` (None without an adversarial term) are frozen but for their own step, which `discriminate`
    serves.

    Diagnostics: ``kl_nats`` the divergence without clipping or regulariser, ``entropy`` of the student in nats per
    sample of audio, ``floor_share`` of samples on the log-scale floor, ``amplitude_std`` and ``amplitude_mean`` of the
    student's audio, ``real_std`` and ``real_mean`` of the recording's.
    """

    def __init__(self, config: DistillationConfig, student: ParallelWaveNet, teacher: WaveNet) -> None:
        super().__init__()
        self.config = config
        self.teacher = teacher
        self.sample_rate = student.sample_rate
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
                    f"{', '.join(sorted(wrong | {'kl'}))}: "
                    "use a gaussian teacher (or, with 'mol', leave these terms out except kl)."
                )
        if "mel" in weights and student.config.mel is None or "pitch" in weights and student.pitch is None:
            raise WavedistillError(
                "loss.weights: 'mel' needs a mel-conditioned student and 'pitch' one with source_order above 0."
            )
        self.stft = MultiResolutionSTFT(student.sample_rate) if "stft" in weights else None
        self.mel = LogMelSpectrogram(student.config.mel) if "mel" in weights else None
        self.discriminators: Discriminators | None = None
        if set(ADVERSARIAL_TERMS) & weights.keys():
            self.discriminators = Discriminators(config.discriminator, student.sample_rate).requires_grad_(False)

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
        output = student.rsample(noise, mel, speaker)
        terms = {}
        if {"kl", "regularizer"} & self.config.weights.keys():
            asked = math.ceil(self.config.kl_share * len(audio))
            part = StudentOutput(*(_first(value, asked) for value in output))
            terms |= self._divergence(student, part, _first(mel, asked), _first(speaker, asked), step)
        with torch.autocast(audio.device.type, enabled=False):
            if self.stft is not None:
                terms["stft"] = self.stft(output.refined[:, 0], audio[:, 0])
            if self.mel is not None:
                terms["mel"] = (self.mel(output.audio[:, 0]) - mel).abs().mean()
            if "pitch" in self.config.weights:
                terms["pitch"] = student.pitch.loss(output.pitch_logits, f0)
        if self.discriminators is not None:
            terms |= self._adversarial(output.refined[:, 0], audio[:, 0])
        if "contrastive" in self.config.weights:
            terms["contrastive"] = self._contrastive(output, mel, speaker)
        if "instructive" in self.config.weights:
            terms["instructive"] = self._instructive(student, audio, mel, speaker)
        loss = sum(weight * terms[name] for name, weight in self.config.weights.items())
        logged = {name: value.detach() for name, value in terms.items()}
        return loss, logged | self._diagnose(student, output, audio)

    def discriminate(
        self, student: ParallelWaveNet, audio: Tensor, mel: Tensor | None, speaker: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the discriminators minimise, (D(x) - 1)^2 + D(x^)^2, and the means of their scores.

        Shapes: as in `forward`. The student's audio x^ is made without gradient, from the noise that `forward` draws
        from the same seed.
        """
        with torch.no_grad():
            made = student.rsample(torch.randn(audio.shape, device=audio.device), mel, speaker, in_pieces=True).refined
        made, real = self._crops(made[:, 0], audio[:, 0])
        fakes, reals = ([score.float() for score in self.discriminators(waves).scores] for waves in (made, real))
        losses = [(real - 1.0).square().mean() + fake.square().mean() for real, fake in zip(reals, fakes, strict=True)]
        loss = torch.stack(losses).mean()
        means = {
            name: torch.stack([s.mean() for s in scores]).mean().detach()
            for name, scores in (("real", reals), ("fake", fakes))
        }
        return loss, {"discriminator_loss": loss.detach(), "real_score": means["real"], "fake_score": means["fake"]}

    def _adversarial(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The student's side of the game, on waveforms (batch, samples); means over discriminators and over hidden
        layers.
        """
        made, real = self._crops(made, real)
        judged = self.discriminators(made)
        terms = {}
        if "adversarial" in self.config.weights:
            terms["adversarial"] = torch.stack(
                [(score.float() - 1.0).square().mean() for score in judged.scores]
            ).mean()
        if "feature_matching" in self.config.weights:
            with torch.no_grad():
                wanted = self.discriminators(real).features
            distances = [
                (ours.float() - theirs.float()).abs().mean()
                for ours, theirs in zip(judged.features, wanted, strict=True)
            ]
            terms["feature_matching"] = torch.stack(distances).mean()
        return terms

    def _crops(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The same random crop of both, `DiscriminatorConfig.segment_seconds` long."""
        length = min(round(self.config.discriminator.segment_seconds * self.sample_rate), real.shape[1])
        start = int(torch.randint(real.shape[1] - length + 1, ()))
        return made[:, start : start + length], real[:, start : start + length]

    def _divergence(
        self, student: ParallelWaveNet, output: StudentOutput, mel: Tensor | None, speaker: Tensor | None, step: int
    ) -> dict[str, Tensor]:
        """kl, regularizer and kl_nats on the front's signal, where the divergence is the waveform's (the front is a
        bijection).
        """
        skip = first_counted(student, self.teacher, output.loc.shape[1])
        parameters, shift = self.teacher.predict(output.excitation, mel, speaker)
        if not isinstance(self.teacher.distribution, Gaussian):
            kl = self._monte_carlo_kl(output, parameters, shift)[:, skip:]
            return {"kl": kl.mean(), "kl_nats": kl.mean()}
        loc_p, log_scale_p = self.teacher.distribution.loc_scale(parameters, shift)
        floor = self.config.log_scale_floor
        kl = gaussian_kl(output.loc, output.log_scale.clamp_min(floor), loc_p, log_scale_p.clamp_min(floor))[:, skip:]
        clipped = kl.clamp_max(self.config.kl_clip) if step < self.config.kl_clip_steps else kl
        regularizer = (output.log_scale - log_scale_p)[:, skip:].square().mean()
        return {"kl": clipped.mean(), "regularizer": regularizer, "kl_nats": kl.mean()}

    def _monte_carlo_kl(self, output: StudentOutput, parameters: Tensor, shift: Tensor) -> Tensor:
        """E_q[log q - log p] per sample, (batch, samples): q's entropy exact, the cross-entropy a mean over draws."""
        draws = torch.randn(self.config.monte_carlo_samples, *output.loc.shape, device=output.loc.device)
        values = output.loc + torch.exp(output.log_scale) * draws
        cross = torch.stack([self.teacher.distribution.log_prob(parameters, shift, value) for value in values]).mean(0)
        return -Gaussian.entropy(output.log_scale) - cross

    def _contrastive(self, output: StudentOutput, mel: Tensor | None, speaker: Tensor | None) -> Tensor:
        """Minus the (bounded) divergence from the teacher that is told another clip's condition."""
        if mel is None and speaker is None:
            raise WavedistillError("loss.weights: 'contrastive' needs a conditional model.")
        other_mel = None if mel is None else mel.roll(1, 0)
        other_speaker = None if speaker is None else speaker.roll(1, 0)
        front = self.teacher.front
        own = output.lpc
        other = front.condition(other_mel)
        u = front.forward(output.audio, other).value[:, 0]
        loc_p, log_scale_p = self.teacher.distribution.loc_scale(*self.teacher.predict(u, other_mel, other_speaker))
        # in the waveform's domain, since the two conditions have different fronts
        slope_q = front.log_slope(u, own)
        slope_p = front.log_slope(u, other)
        wave = output.audio[:, 0]
        loc_q = wave + (output.loc - output.excitation) * torch.exp(-slope_q)
        loc_p = wave + (loc_p - u) * torch.exp(-slope_p)
        kl = gaussian_kl(loc_q, output.log_scale - slope_q, loc_p, log_scale_p - slope_p)
        return -kl.clamp_max(self.config.kl_clip).mean()

    def _instructive(
        self, student: ParallelWaveNet, audio: Tensor, mel: Tensor | None, speaker: Tensor | None
    ) -> Tensor:
        with torch.no_grad():
            noise = self.teacher.encode(audio, mel, speaker)
            target = self.teacher.front.forward(audio, self.teacher.front.condition(mel)).value[:, 0]
        output = student.rsample(noise, mel, speaker)
        skip = first_counted(student, self.teacher, target.shape[1])
        return nn.functional.smooth_l1_loss(output.excitation[:, skip:], target[:, skip:])

    @torch.no_grad()
    def _diagnose(self, student: ParallelWaveNet, output: StudentOutput, audio: Tensor) -> dict[str, Tensor]:
        slope = student.front.log_slope(output.loc, output.lpc)
        return {
            "entropy": Gaussian.entropy(output.log_scale - slope).mean(),
            "floor_share": (output.log_scale <= self.config.log_scale_floor).float().mean(),
            "amplitude_mean": output.audio.mean(),
            "amplitude_std": output.audio.std(),
            "real_mean": audio.mean(),
            "real_std": audio.std(),
        }


def _first(value: Tensor | LPC | None, count: int) -> Tensor | LPC | None:
    """The first ``count`` clips of a batch."""
    if isinstance(value, LPC):
        return LPC(*(part[:count] for part in value))
    return None if value is None else value[:count]


def first_counted(student: ParallelWaveNet, teacher: WaveNet, samples: int) -> int:
    """Samples at the start of a crop that the divergence leaves out: their past is cut off (at most half the crop)."""
    return min(max(student.receptive_field, teacher.receptive_field) - 1, samples // 2)


class MultiResolutionSTFT(nn.Module):
    """Spectral convergence plus mean log-magnitude distance, averaged over three resolutions (Parallel WaveGAN, eqs.
    6-9).

    Windows are 10, 25 and 50 ms long with a fifth of that as hop, whatever the sample rate.

    Shapes: two waveforms (batch, samples) -> scalar.
    """

    milliseconds = (10.0, 25.0, 50.0)

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.windows = [round(sample_rate * length / 1000.0) for length in self.milliseconds]
        for index, length in enumerate(self.windows):
            self.register_buffer(f"window_{index}", torch.hann_window(length), persistent=False)

    def forward(self, candidate: Tensor, reference: Tensor) -> Tensor:
        total = candidate.new_zeros(())
        for index in range(len(self.windows)):
            window = getattr(self, f"window_{index}")
            ours = self._magnitude(candidate, window)
            theirs = self._magnitude(reference, window)
            convergence = torch.linalg.vector_norm(theirs - ours) / torch.linalg.vector_norm(theirs).clamp_min(1e-5)
            total = total + convergence + (ours.log() - theirs.log()).abs().mean()
        return total / len(self.windows)

    @staticmethod
    def _magnitude(waves: Tensor, window: Tensor) -> Tensor:
        n_fft = 2 ** math.ceil(math.log2(len(window)))
        spectrum = torch.stft(waves, n_fft, len(window) // 5, len(window), window, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square()).clamp_min(1e-7).sqrt()
