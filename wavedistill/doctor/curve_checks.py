"""Checks of a run's curves and options that hold for teachers, students and flows alike.

Each takes a `RunFolder` and gives a `Verdict`, or None where the question does not arise. The thresholds lie beyond
everything seen in healthy runs: those of the released voices (recipes/speech/results/metrics-*.jsonl) and some
twenty shorter ones.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from wavedistill.data.baseline import bits_per_sample, linear_prediction_log_prob
from wavedistill.data.dataset import DEFAULT_HOP_LENGTH, SpeechDataset
from wavedistill.doctor.verdict import Verdict, graded
from wavedistill.errors import WavedistillError
from wavedistill.training.config import OptimConfig
from wavedistill.training.flow import PAST_FRAMES
from wavedistill.training.recipe import FlowRecipe, StudentRecipe
from wavedistill.training.run_folder import RunFolder
from wavedistill.training.task import validation_batches
from wavedistill.training.teacher import skipped

SPIKE = 10.0
"""A logged gradient this many times the run's median, and the norm it is clipped to, is a spike: healthy runs stay
below 5.
"""
LOST_SHARE = 0.5
"""A run that has lost this share of what it had gained diverges."""
LOW_RATE = 1e-4
"""Peak learning rate below which a flat curve is blamed on it."""
STEEP_SHARE = 0.2
"""Share of a finished run's whole fall that its last quarter may still bring: 0.02 to 0.11 in released runs."""
FEW_STEPS = 1000
RISE_BITS = 0.02
RISE_SHARE = 0.01
"""Rise of the held-out curve above its lowest point: bits, and share of a loss. Released runs: at most 0.002 of either.
"""
SLOW_SHARE = 0.5
_FEW_VALIDATIONS = 5


def not_finite(run: RunFolder) -> Verdict | None:
    """The loop stopped with "not finite", or logged numbers that are none."""
    slower = run.command(*_halved_rates(run.recipe.optim))
    if run.nonfinite is not None:
        text = (
            f"the loss or its gradient was not finite at step {run.nonfinite}, whose batch is kept in "
            "nonfinite-batch.pt"
        )
        if run.step > run.nonfinite:
            return Verdict("worth knowing", f"{text}; the run has gone on since, to step {run.step}")
        return Verdict("wrong", text, slower)
    bad = ~np.isfinite(run.values("loss"))
    if run.recipe.run.precision == "fp16":  # its loss scaling overflows now and then, by design
        return None
    return Verdict(
        "wrong" if bad.any() else "healthy",
        f"{int(bad.sum())} of {len(bad)} logged losses are not finite",
        slower if bad.any() else None,
    )


def rate_too_high(run: RunFolder) -> Verdict | None:
    """Spikes of the gradient, or a training loss that has lost much of what it had gained."""
    optim = run.recipe.optim
    warmup = str(2 * max(optim.warmup_steps, 50))
    slower = run.command(*_halved_rates(optim), "--optim.warmup_steps", warmup, fresh_run=True)
    norms = run.values("grad_norm")[run.steps("grad_norm") > optim.warmup_steps]
    norms = norms[np.isfinite(norms)]
    loss = run.values(run.objective)
    loss = loss[np.isfinite(loss)]
    if len(norms) < 4 or len(loss) < 6:
        return Verdict(
            "not checked", f"logs after the warm-up of {optim.warmup_steps} steps: {len(norms)}; 4 are needed"
        )
    spikes = int((norms > SPIKE * max(float(np.median(norms)), optim.clip_norm)).sum())
    width = max(2, len(loss) // 10)
    smooth = np.array([np.median(loss[i : i + width]) for i in range(len(loss) - width + 1)])
    noise = float(np.median(np.abs(np.diff(loss))))
    gained = float(smooth[0] - smooth.min())
    lost = float(smooth[-1] - smooth.min())
    diverged = lost > max(LOST_SHARE * gained, 4 * noise)
    evidence = (
        f"largest gradient norm {norms.max():.3g}, median {np.median(norms):.3g} ({spikes} spikes); training "
        f"{run.objective} {smooth[0]:.3f} -> {smooth.min():.3f} at best -> {smooth[-1]:.3f} now"
    )
    if diverged or spikes > 1:
        return Verdict("wrong", evidence, slower)
    return Verdict("worth knowing", evidence, slower) if spikes else Verdict("healthy", evidence)


def rate_too_low(run: RunFolder) -> Verdict | None:
    """A peak rate below `LOW_RATE` and a training loss that does not leave its noise."""
    lr = run.recipe.optim.lr
    loss = run.values(run.objective)
    loss = loss[np.isfinite(loss)]
    if lr >= LOW_RATE:
        return Verdict("healthy", f"peak rate {lr:g}")
    if len(loss) < 8:
        return Verdict("not checked", f"logs: {len(loss)}; 8 are needed")
    quarter = len(loss) // 4
    fall = float(loss[:quarter].mean() - loss[-quarter:].mean())
    error = float(np.diff(loss).std() / math.sqrt(quarter))
    evidence = (
        f"peak rate {lr:g}; training {run.objective} fell by {fall:.3f} from the first to the last quarter, its noise "
        f"is {error:.3f}"
    )
    if fall > 2 * error:
        return Verdict("healthy", evidence)
    severity = "wrong" if run.recipe.run.init_from is None else "worth knowing"
    return Verdict(severity, evidence, run.command("--optim.lr", "1e-3", fresh_run=True))


def still_falling(run: RunFolder) -> Verdict | None:
    """A finished schedule whose last quarter brought much of the fall."""
    if run.done < 0.99:
        return None
    steps = run.steps(run.objective, "valid")
    values = run.values(run.objective, "valid")
    if len(values) < _FEW_VALIDATIONS:
        return Verdict("not checked", f"validations: {len(values)}; {_FEW_VALIDATIONS} are needed")
    whole = float(values[0] - values[-1])
    late = float(np.interp(0.75 * steps[-1], steps, values) - values[-1])
    evidence = f"held-out {run.objective} {values[0]:.3f} -> {values[-1]:.3f}, {late:.3f} of it in the last quarter"
    steep = late > max(STEEP_SHARE * whole, 0.003 * abs(float(values[-1])))
    return Verdict("worth knowing" if steep else "healthy", evidence, run.command(*run.longer(3)) if steep else None)


def unfinished(run: RunFolder) -> Verdict | None:
    """A schedule that has not been run to its end, and a process that hangs."""
    where = f"step {run.step}, {100 * run.done:.0f} % of the schedule"
    rates = run.values("lr")
    if run.recipe.optim.decay != "constant" and len(rates):
        where += f", learning rate {rates[-1]:.2g} (peak {run.recipe.optim.lr:g})"
    if run.is_training:
        times = np.array([line["elapsed"] for line in run.lines] or [0.0])
        usual = float(np.median(np.diff(times))) if len(times) > 2 else 60.0
        if run.idle_seconds > max(600.0, 20 * usual):
            return Verdict(
                "wrong",
                f"{where}; a process holds the run, but the last line was logged {run.idle_seconds / 60:.0f} min ago",
            )
        return Verdict("healthy", f"{where}; it is training now")
    if run.done >= 0.99:
        return Verdict("healthy", where)
    return Verdict("worth knowing", f"{where}; no process is training there", run.command())


def short(run: RunFolder) -> Verdict | None:
    """Few steps, however long they took, of a run that starts from nothing."""
    seconds = run.recipe.data.segment_seconds * run.recipe.data.batch_size * run.recipe.run.accumulate * run.step
    few = run.step < FEW_STEPS and run.recipe.run.init_from is None
    heard = f"{run.step} steps, {seconds / 60:.0f} min of audio heard"
    return Verdict("worth knowing" if few else "healthy", heard, run.command(*run.longer(10)) if few else None)


def overfitting(run: RunFolder) -> Verdict | None:
    """Held-out speech gets worse while the training crops get better."""
    steps = run.steps(run.objective, "valid")
    held_out = run.values(run.objective, "valid")
    if len(held_out) < _FEW_VALIDATIONS or not np.isfinite(held_out).all():
        return Verdict("not checked", f"validations: {len(held_out)}; {_FEW_VALIDATIONS} are needed")
    best = int(held_out.argmin())
    rise = float(held_out[-1] - held_out[best])
    course = f"{held_out[best]:.3f} at step {steps[best]}, {held_out[-1]:.3f} at step {steps[-1]}"
    evidence = f"held-out {run.objective} {course}"
    margin = RISE_BITS if run.objective == "bits" else RISE_SHARE * abs(float(held_out[best]))
    at = run.steps(run.objective)
    train = run.values(run.objective)
    after = np.isfinite(train) & (at > steps[best])
    before = np.isfinite(train) & (at <= steps[best]) & (at > 2 * steps[best] - steps[-1])
    if rise <= margin or not (after.any() and before.any()):
        return Verdict("healthy", evidence)
    evidence += f"; on the training crops {train[before].mean():.3f} before and {train[after].mean():.3f} since"
    if train[after].mean() > train[before].mean():  # both rise: that is no overfitting
        return Verdict("healthy", evidence)
    gain = ["--data.gain_augment_db", "6"] if run.recipe.data.gain_augment_db == 0 else ["--optim.weight_decay", "0.01"]
    return graded(rise, margin, 3 * margin, evidence, run.command(*gain, fresh_run=True))


def slowed(run: RunFolder) -> Verdict | None:
    """Audio per second of computing, now and at its best."""
    speed = run.values("audio_seconds_per_second")
    if len(speed) < 8:
        return Verdict("not checked", f"logs: {len(speed)}; 8 are needed")
    quarters = [float(np.median(part)) for part in np.array_split(speed, 4)]
    evidence = f"{quarters[-1]:.3g} s of audio a second in the last quarter, {max(quarters):.3g} in the best one"
    return Verdict("worth knowing" if quarters[-1] < SLOW_SHARE * max(quarters) else "healthy", evidence)


def no_average(run: RunFolder) -> Verdict | None:
    """Whether the checkpoint holds averaged weights."""
    ema = run.recipe.optim.ema
    if ema > 0:
        return Verdict("healthy", f"optim.ema {ema:g}")
    return Verdict(
        "worth knowing",
        "optim.ema 0: the checkpoint holds the newest weights",
        run.command("--optim.ema", "0.999", fresh_run=True),
    )


def raw_samples(run: RunFolder) -> Verdict | None:
    """A model that sees speech neither whitened by the mel nor pre-emphasised."""
    front = run.recipe.model.front
    bits = run.last("bits")
    reached = "" if bits is None else f", {bits:.2f} bits per sample"
    evidence = (
        f"front.mel_prediction_order {front.mel_prediction_order}, front.pre_emphasis {front.pre_emphasis:g}{reached}"
    )
    if front.mel_prediction_order or front.pre_emphasis:
        return Verdict("healthy", evidence)
    options = ["--model.front.pre_emphasis", "0.95", "--model.front.scale", "20"]
    if run.recipe.model.mel is not None:
        options = ["--model.front.mel_prediction_order", "32"]
    return Verdict(
        "wrong", evidence, None if isinstance(run.recipe, StudentRecipe) else run.command(*options, fresh_run=True)
    )


def weak_teacher(run: RunFolder) -> Verdict | None:
    """Bits of a teacher or flow against linear prediction on the same held-out crops.

    Of a student it is told whether its teacher was checked in this way when distillation began.
    """
    if isinstance(run.recipe, StudentRecipe):
        if run.recipe.loss.allow_weak_teacher:
            return Verdict(
                "worth knowing",
                f"loss.allow_weak_teacher is on: nothing says that {run.recipe.teacher} beats linear prediction",
            )
        return Verdict(
            "healthy",
            f"{run.recipe.teacher} coded held-out speech better than linear prediction when distillation began",
        )
    bits = run.last("bits")
    if bits is None:
        return None
    try:
        reference = _linear_prediction_on_crops(run)
    except WavedistillError as error:
        return Verdict("not checked", f"the data cannot be read here ({error})")
    evidence = f"{bits:.2f} bits per sample on held-out crops, linear prediction {reference:.2f} on the same"
    return graded(bits, reference, reference, evidence, run.command(*run.longer(3)))


def _halved_rates(optim: OptimConfig) -> list[str]:
    """The options that halve every learning rate of a run."""
    muon = ["--optim.muon_lr", f"{optim.muon_lr / 2:g}"] if optim.muon_lr > 0 else []
    return ["--optim.lr", f"{optim.lr / 2:g}", *muon]


def _linear_prediction_on_crops(run: RunFolder) -> float:
    """Bits per sample on the crops that validation scores, without the samples at their start that it leaves out."""
    recipe = run.recipe
    model = recipe.model
    data = recipe.data
    if not Path(data.manifest).exists():
        raise WavedistillError(f"no {data.manifest}")
    hop = model.mel.hop_length if model.mel else DEFAULT_HOP_LENGTH
    frames = data.segment_frames(model.sample_rate, hop)
    dataset = SpeechDataset(data.manifest, "valid", model.mel, frames, speakers=model.speakers or None)
    skip = PAST_FRAMES * hop if isinstance(recipe, FlowRecipe) else skipped(model)
    scores = []
    for batch in validation_batches(dataset, recipe.run.validate_batches):
        for item, audio in enumerate(batch.audio):
            mel = None if batch.mel is None else batch.mel[item]
            scores.append(linear_prediction_log_prob(audio, mel, model.mel, seed=len(scores))[skip:])
    return float(bits_per_sample(np.concatenate(scores).mean()))
