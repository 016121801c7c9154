"""The list of what can be wrong with a run: how it shows, why, and what to change.

`wavedistill doctor` goes through it, and the table in docs/troubleshooting.md is made from it, so that neither knows
anything the other does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wavedistill.doctor import curve_checks as curves
from wavedistill.doctor import sample_checks as samples
from wavedistill.doctor import student_checks as student
from wavedistill.doctor.verdict import Verdict
from wavedistill.text import markdown_table
from wavedistill.training.run_folder import RunFolder


@dataclass(frozen=True)
class Symptom:
    """Something that goes wrong with a run.

    Attributes:
        name: of it, in the field's words.
        shows: how it shows, with the thresholds.
        cause, remedy: why, and which term or option to change.
        check: looks for it in a run; None where the question does not arise.
        comes_first: where this is wrong the run is of no use, and the rest follows from it.
    """

    name: str
    shows: str
    cause: str
    remedy: str
    check: Callable[[RunFolder], Verdict | None]
    comes_first: bool = False


SYMPTOMS = (
    Symptom(
        "not finite",
        'the run stops with "not finite" and keeps `nonfinite-batch.pt`, or `loss` is null in metrics.jsonl',
        "a learning rate too high for the batch, or fp16",
        "halve `optim.lr` and go on from the last save; on fp16 take `run.precision` bf16 or fp32",
        curves.not_finite,
        comes_first=True,
    ),
    Symptom(
        "learning rate too high",
        f"`grad_norm` jumps to {curves.SPIKE:g} times its median after the warm-up, or the training loss loses "
        "half of what it had gained",
        "steps longer than the loss is smooth",
        "halve `optim.lr`, double `optim.warmup_steps`; or a larger `data.batch_size`",
        curves.rate_too_high,
        comes_first=True,
    ),
    Symptom(
        "learning rate too low",
        f"`optim.lr` below {curves.LOW_RATE:g} and a training loss that stays within its noise",
        "steps too short to get anywhere in the run's time",
        "`optim.lr` 1e-3 to 2e-3",
        curves.rate_too_low,
        comes_first=True,
    ),
    Symptom(
        "finished too early",
        f"the schedule is over, and its last quarter still brought more than {100 * curves.STEEP_SHARE:g} % of "
        "the fall of the held-out curve",
        "a budget too small for the data and the model",
        "a larger `run.minutes` or `run.steps`: the same command goes on, and the learning rate with it",
        curves.still_falling,
    ),
    Symptom(
        "not finished",
        "the last step is short of `run.steps` and `run.minutes`, so that the learning rate has not come down; or "
        "a process holds the run and logs nothing for ten minutes",
        "stopped, killed, or hanging",
        "give the command again: it goes on from the last save; end a process that hangs first",
        curves.unfinished,
    ),
    Symptom(
        "few steps",
        f"fewer than {curves.FEW_STEPS:,} steps, not from a checkpoint (`run.init_from`)",
        "published models take 500,000; the released students 2,000 to 7,000, from a good start",
        "a larger `run.minutes`, a GPU; on a slow machine a smaller `model.stack`",
        curves.short,
    ),
    Symptom(
        "overfitting",
        f"held-out `bits` {curves.RISE_BITS:g} (a student's `loss` {100 * curves.RISE_SHARE:g} %) above its "
        "lowest value while the training crops go on falling",
        "too little data for the model",
        "more recordings, `data.gain_augment_db` 6, `optim.weight_decay` 0.01, fewer channels, or fewer steps",
        curves.overfitting,
    ),
    Symptom(
        "slowed down",
        f"`audio_seconds_per_second` of the last quarter below {100 * curves.SLOW_SHARE:g} % of the best one's",
        "something else on the machine, a disk that cannot keep up, or validation and samples too often",
        "free the machine; raise `run.validate_every` and `run.sample_every`",
        curves.slowed,
    ),
    Symptom(
        "no average",
        "`optim.ema` 0",
        "the newest weights carry the noise of the last steps into the checkpoint",
        "`optim.ema` 0.99 for hundreds of steps, 0.999 for thousands, 0.9999 beyond; it warms up by itself",
        curves.no_average,
    ),
    Symptom(
        "raw samples",
        "`front.mel_prediction_order` 0 and no pre-emphasis; `bits` flat, far above linear prediction (13.6 where "
        "the recipe has 9.1 after as many steps)",
        "the network has to learn what linear prediction knows",
        "`model.front.mel_prediction_order` 32; without a mel `model.front.pre_emphasis` 0.95 and `scale` 20",
        curves.raw_samples,
        comes_first=True,
    ),
    Symptom(
        "teacher too weak",
        "held-out `bits` above those of linear prediction on the same crops; `distill` refuses such a teacher, "
        "unless `loss.allow_weak_teacher`",
        "a teacher that predicts less than linear prediction has nothing to teach",
        "train it longer; check its learning rate and its front",
        curves.weak_teacher,
    ),
    Symptom(
        "scales cut off",
        f"`model.log_scale_min` above {student.SCALE_NOTE:g} (above {student.SCALE_WRONG:g}: wrong)",
        "the model may not be as sure as speech lets it be: noise where there is none, bits that cannot fall",
        "`model.log_scale_min` -7, or -9 on raw samples",
        student.scale_limit,
    ),
    Symptom(
        "whisper",
        f"`amplitude_std` below {samples.QUIET_NOTE:g} of `real_std` (below {samples.QUIET_WRONG:g}: wrong), or "
        "the level of the samples below the originals'",
        "the divergence alone is content with the middle of its modes; a one-stage flow has no term for the level "
        "at all",
        "raise `loss.weights.stft` and `mel` against `kl`; a flow: `--temperature 1.2` (+2.5 dB on speech-flow), "
        "or a student",
        samples.whisper,
    ),
    Symptom(
        "too loud",
        f"the same ratio above {samples.LOUD_NOTE:g} (above {samples.LOUD_WRONG:g}: wrong), or "
        f"{samples.CLIPPED_NOTE:g} % of the samples clipped beyond the originals' share",
        "scales too wide, from a high learning rate or too short a training; recordings that are clipped themselves; a "
        "teacher that amplifies its own errors",
        "halve `optim.lr`, train longer; leave clipped recordings out, `data.gain_augment_db` 6; a teacher: "
        "`loss.rollout.weight` 1",
        samples.too_loud,
    ),
    Symptom(
        "hiss",
        f"samples {samples.HISS_NOTE:g} dB above the originals in the upper band (4 to 7 kHz at 16 kHz), beyond "
        f"the level, in the median frame, or {samples.PAUSE_NOTE:g} dB in the quietest quarter",
        "too little spectral loss, too short a training, or too few bands above 4 kHz",
        "raise `loss.weights.stft` and `mel`, train longer; listen with `--temperature 0.8`",
        samples.hiss,
    ),
    Symptom(
        "dull",
        f"samples {-samples.DULL_NOTE:g} dB below the originals in the same band, beyond the level",
        "`mel.f_max` below the band, or too short a training",
        "`model.mel.f_max` at half the sample rate, raise `loss.weights.stft`, train longer",
        samples.dull,
    ),
    Symptom(
        "mel mismatch",
        f"the samples' mel differs from the originals' by {samples.MEL_NOTE:g} nats band by band, beyond the "
        f"level (above {samples.MEL_WRONG:g}: wrong); "
        "or the curves are fine and your own mels give noise or a voice under water",
        "mels of other settings than the model's: another `norm`, `mel_scale`, `power` or frame alignment cannot "
        "be seen in a file "
        "(decibels, log10 and transposed mels are refused)",
        "compare with `wavedistill info`; make mels with `vocoder.mel`, or train with their settings "
        "(`MelConfig.preset`); raise `loss.weights.mel`",
        samples.mel_mismatch,
    ),
    Symptom(
        "wrong pitch",
        f"F0 of the samples {samples.CENTS_NOTE:g} cents off in the median frame, 3 semitones in "
        f"{samples.GROSS_NOTE:g} % of them, or "
        f"{samples.VOICING_NOTE:g} % voiced in one only",
        "a pitch predictor that has not learned the voice (its range is 60 to 500 Hz), or music",
        "see `pitch`; train longer, more data of such voices; `model.source_order` 0 where there is no pitch",
        samples.wrong_pitch,
    ),
    Symptom(
        "pitch not learned",
        f"`pitch` above {student.PITCH_NOTE:g} nats (above {student.PITCH_WRONG:g}: wrong; a guess has "
        f"{student.PITCH_GUESS:.1f}), or no such term beside a source",
        "too short a training, a mel with too few bands at low frequencies, or music",
        "train longer; `loss.weights.pitch` 0.5; `start_from` a trained student; `model.source_order` 0 for music",
        student.pitch_not_learned,
    ),
    Symptom(
        "spectrum stands still",
        "`pitch` has fallen by 20 %, `stft` by less than 5 %: buzzing, robotic",
        "the harmonic source does all the work",
        "raise `loss.weights.stft` and `kl`, train longer",
        student.spectrum_stands_still,
    ),
    Symptom(
        "floor collapse",
        f"`floor_share` above {student.FLOOR_NOTE:g} (above {student.FLOOR_WRONG:g}: wrong)",
        "teacher and student agree on the floor of the log-scales, where the divergence has no gradient",
        "raise `loss.weights.regularizer`, which acts on the scales beneath the floor",
        student.floor_collapse,
    ),
    Symptom(
        "divergence still clipped",
        f"`kl` more than {100 * student.CLIPPED_SHARE:g} % below `kl_nats`",
        "`loss.kl_clip_steps` has not passed, and samples beyond `loss.kl_clip` pass no gradient",
        "a smaller `loss.kl_clip_steps`, a larger `loss.kl_clip`, or a longer run",
        student.divergence_clipped,
    ),
    Symptom(
        "far from the teacher",
        f"`kl_nats` above {student.KL_NOTE:g} (above {student.KL_WRONG:g}: wrong)",
        "too little weight on the divergence, too short a training, or a student much smaller than its teacher",
        "raise `loss.weights.kl`, train longer; `loss.weights.instructive` 1 lowers it at a price",
        student.far_from_teacher,
    ),
    Symptom(
        "entropy too low",
        f"`entropy` {student.FALL_NOTE:g} nats below its start (by {student.FALL_WRONG:g}: wrong), or "
        f"{student.BELOW_NOTE:g} below what the teacher gives held-out speech",
        "nothing keeps the student's scales at its teacher's, or too little",
        "give `loss.weights` `kl` (0.2) and `regularizer` (0.1)",
        student.low_entropy,
    ),
    Symptom(
        "divergence alone",
        "`loss.weights` without `stft` and `mel`",
        "the best divergence is a whisper",
        "add `stft: 1.0` and `mel: 2.0` to `loss.weights`; without a mel there is no such term",
        student.divergence_alone,
    ),
    Symptom(
        "no divergence",
        "`loss.weights` without `kl`",
        "the student learns a spectrogram, not its teacher's distribution",
        "add `kl: 0.2` and `regularizer: 0.1` to `loss.weights`, unless this is a first stage on purpose",
        student.no_divergence,
    ),
)


def symptom_table() -> str:
    """The list as a Markdown table."""
    rows = [[symptom.name, symptom.shows, symptom.cause, symptom.remedy] for symptom in SYMPTOMS]
    return markdown_table(["symptom", "how it shows", "cause", "what to change"], rows, left=4)
