"""Checks of the newest samples of a run against the originals beside them: level, clipping, hiss, dullness, mel, pitch.

Each takes a `RunFolder` and gives a `Verdict`, or None where the question does not arise. Thresholds: see
`curve_checks`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.audio.pitch import estimate_f0
from wavedistill.doctor.verdict import Verdict, graded, worse
from wavedistill.metrics.signal import clipped_percent
from wavedistill.training.run_folder import RunFolder

QUIET_NOTE = 0.93
QUIET_WRONG = 0.8
LOUD_NOTE = 1.1
LOUD_WRONG = 1.3
"""Level of the model's audio over the recordings'; 0.954 to 0.974 in healthy students."""
CLIPPED_NOTE = 0.1
CLIPPED_WRONG = 1.0
"""Percent of samples at full scale beyond the originals' own; at most 0.001 in healthy students."""
HISS_NOTE = 2.0
HISS_WRONG = 4.0
PAUSE_NOTE = 5.0
PAUSE_WRONG = 10.0
DULL_NOTE = -2.0
DULL_WRONG = -4.0
"""dB by which the upper band of the samples differs from the originals', beyond what the level does: median over all
frames (within 0.8 in healthy runs) and over the quietest quarter of them (within 1.5).
"""
MEL_NOTE = 0.3
MEL_WRONG = 0.6
"""Nats of lasting difference of the mel's bands, less that of the level; at most 0.1 in healthy students."""
CENTS_NOTE = 40.0
CENTS_WRONG = 100.0
VOICING_NOTE = 15.0
VOICING_WRONG = 30.0
GROSS_NOTE = 15.0
GROSS_WRONG = 30.0
"""Median pitch error in cents, percent of frames voiced in one only, percent off by 3 semitones: 8, 6 and 4 in healthy
students.
"""
UPPER_BAND = (0.25, 0.4375)
"""Of the sample rate: 4 to 7 kHz at 16 kHz."""
Side = Literal["generated", "original"]
_SECONDS = 1.0
_INAUDIBLE = 1e-6  # of the loudest frame's power in the band
_GROSS_CENTS = 300.0
_VOICED_FRAMES = 20


def whisper(run: RunFolder) -> Verdict | None:
    """Level of the model's audio below that of the recordings: as logged, and of the samples."""
    return _on_level(run, QUIET_NOTE, QUIET_WRONG, _with_more_spectrum(run))


def too_loud(run: RunFolder) -> Verdict | None:
    """The same level above it, or samples at full scale."""
    verdict = _on_level(run, LOUD_NOTE, LOUD_WRONG, None)
    if _too_short(run):
        return verdict
    generated = clipped_percent(_audio(run, "generated"))
    original = clipped_percent(_audio(run, "original"))
    evidence = f"{generated:.3f} % of the samples clipped, {original:.3f} % of the originals'"
    return worse(verdict, graded(generated - original, CLIPPED_NOTE, CLIPPED_WRONG, evidence))


def hiss(run: RunFolder) -> Verdict | None:
    """More power in the upper band than the originals have there."""
    return _on_upper_band(run, dull=False)


def dull(run: RunFolder) -> Verdict | None:
    """Less power in the upper band than the originals have there."""
    return _on_upper_band(run, dull=True)


def mel_mismatch(run: RunFolder) -> Verdict | None:
    """A lasting difference between the samples' mel and the originals', band by band."""
    if (skipped := _not_comparable(run)) is not None:
        return skipped
    front_end = LogMelSpectrogram(run.recipe.model.mel)
    differences = [front_end(pair.generated) - front_end(pair.original) for pair in run.samples.pairs]
    difference = torch.cat(differences, dim=1).mean(dim=1)
    shape = float((difference - difference.mean()).abs().mean())
    worst = int((difference - difference.mean()).abs().argmax())
    evidence = (
        f"bands differ from the originals' by {shape:.2f} nats beyond the level ({difference[worst]:+.2f} in band "
        f"{worst + 1} of {len(difference)})"
    )
    return graded(shape, MEL_NOTE, MEL_WRONG, evidence)


def wrong_pitch(run: RunFolder) -> Verdict | None:
    """F0 of the samples against F0 of the originals."""
    if (skipped := _not_comparable(run)) is not None:
        return skipped
    hop = round(0.016 * run.samples.sample_rate)
    pairs = run.samples.pairs
    expected = torch.cat([estimate_f0(pair.original, run.samples.sample_rate, hop) for pair in pairs])
    given = torch.cat([estimate_f0(pair.generated, run.samples.sample_rate, hop) for pair in pairs])
    both = (expected > 0) & (given > 0)
    if int(both.sum()) < _VOICED_FRAMES:
        return Verdict(
            "not checked", f"{int(both.sum())} frames are voiced in samples and originals; {_VOICED_FRAMES} are needed"
        )
    cents = 1200.0 * torch.log2(given[both] / expected[both]).abs()
    median = float(cents.median())
    gross = 100.0 * float((cents > _GROSS_CENTS).float().mean())
    voicing = 100.0 * float(((expected > 0) != (given > 0)).float().mean())
    command = run.command(*run.longer(2))
    verdict = graded(median, CENTS_NOTE, CENTS_WRONG, f"F0 off by {median:.0f} cents in the median frame", command)
    verdict = worse(
        verdict, graded(gross, GROSS_NOTE, GROSS_WRONG, f"by 3 semitones in {gross:.1f} % of the voiced ones", command)
    )
    return worse(verdict, graded(voicing, VOICING_NOTE, VOICING_WRONG, f"{voicing:.1f} % voiced in one only", command))


def _on_level(run: RunFolder, note: float, wrong: float, command: str | None) -> Verdict | None:
    generated = run.last("amplitude_std")
    real = run.last("real_std")
    too_short = _too_short(run)
    if too_short:
        verdict = Verdict("not checked", too_short)
    else:
        level = _rms(run, "generated") / max(_rms(run, "original"), 1e-9)
        verdict = graded(level, note, wrong, f"the samples' level is {level:.3f} of the originals'", command)
    if generated is None or not real:
        return verdict
    ratio = generated / real
    evidence = f"amplitude_std {generated:.3f}, real_std {real:.3f}: {ratio:.3f}"
    return worse(graded(ratio, note, wrong, evidence, command), verdict)


def _audio(run: RunFolder, side: Side) -> Tensor:
    """All samples, or all originals, one after another."""
    return torch.cat([getattr(pair, side) for pair in run.samples.pairs])


def _rms(run: RunFolder, side: Side) -> float:
    return float(_audio(run, side).double().square().mean().sqrt())


def _on_upper_band(run: RunFolder, dull: bool) -> Verdict | None:
    if (skipped := _not_comparable(run)) is not None:
        return skipped
    low, high = (share * run.samples.sample_rate / 1000 for share in UPPER_BAND)
    pairs = run.samples.pairs
    generated = torch.cat([_band_power(pair.generated, UPPER_BAND) for pair in pairs])
    original = torch.cat([_band_power(pair.original, UPPER_BAND) for pair in pairs])
    level = torch.cat([_band_power(pair.original, (0.0, 0.5)) for pair in pairs])
    floor = max(float(original.max()) * _INAUDIBLE, 1e-12)
    excess = 10.0 * torch.log10(generated.clamp_min(floor) / original.clamp_min(floor))
    usual = float(excess.median())
    pauses = float(excess[level <= level.quantile(0.25)].median())
    # a voice that is too loud or too quiet on the whole is neither hissing nor dull for that
    whole = 20.0 * math.log10(max(_rms(run, "generated"), 1e-9) / max(_rms(run, "original"), 1e-9))
    evidence = f"{low:g} to {high:g} kHz {usual:+.1f} dB in the median frame ({whole:+.1f} dB on the whole)"
    command = _with_more_spectrum(run)
    if dull:
        return graded(usual - min(whole, 0.0), DULL_NOTE, DULL_WRONG, evidence, command)
    loud = graded(usual - max(whole, 0.0), HISS_NOTE, HISS_WRONG, evidence, command)
    return worse(
        loud,
        graded(pauses - max(whole, 0.0), PAUSE_NOTE, PAUSE_WRONG, f"{pauses:+.1f} dB in the quietest quarter", command),
    )


def _band_power(audio: Tensor, band: tuple[float, float]) -> Tensor:
    """Power of each frame of 512 samples in a band (shares of the sample rate): (samples,) -> (frames,)."""
    size = 512
    spectrum = torch.stft(
        audio, size, size // 2, window=torch.hann_window(size), pad_mode="constant", return_complex=True
    )
    first, last = (round(share * size) for share in band)
    return spectrum[first : last + 1].abs().square().mean(dim=0)


def _with_more_spectrum(run: RunFolder) -> str | None:
    """The command that goes on with twice the weight on the spectral terms that are there."""
    weights = getattr(getattr(run.recipe, "loss", None), "weights", {})
    options = [
        word
        for name in ("stft", "mel")
        if name in weights
        for word in (f"--loss.weights.{name}", f"{2 * weights[name]:g}")
    ]
    return run.command(*options, *run.longer(1.5)) if options else None


def _too_short(run: RunFolder) -> str | None:
    """Why the samples are no ground to judge on."""
    seconds = run.samples.seconds
    if not seconds:
        return "no samples beside originals yet"
    if seconds < _SECONDS:
        return f"{seconds:.1f} s of samples beside their originals; {_SECONDS:g} s are needed"
    return None


def _not_comparable(run: RunFolder) -> Verdict | None:
    """For checks that compare what was said: a model without a mel says something else."""
    if run.recipe.model.mel is None:
        return Verdict("not checked", "a model without a mel says something else than the originals do")
    reason = _too_short(run)
    return None if reason is None else Verdict("not checked", reason)
