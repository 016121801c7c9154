"""Checks of what a distillation, or the pitch part of a flow, logs: its terms, its diagnostics and their weights.

Each takes a `RunFolder` and gives a `Verdict`, or None where the question does not arise. Thresholds: see
`curve_checks`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from wavedistill.doctor.verdict import Verdict, graded, worse
from wavedistill.errors import WavedistillError
from wavedistill.nn.pitch_predictor import NUM_BINS
from wavedistill.training.recipe import FlowRecipe, StudentRecipe
from wavedistill.training.run_folder import RunFolder, read_run

FLOOR_NOTE = 0.01
FLOOR_WRONG = 0.1
"""Share of samples on the log-scale floor; at most 0.0006 in healthy runs."""
SCALE_NOTE = -2.0
SCALE_WRONG = -1.0
"""``log_scale_min`` above which it cuts off scales that are used: cut off at -3, -2 and -1, the released teacher needs
0.002, 0.011 and 0.049 bits per sample more on held-out crops.
"""
CLIPPED_SHARE = 0.05
KL_NOTE = 1.0
KL_WRONG = 2.0
"""Nats per sample; 0.35 to 0.56 in healthy runs."""
FALL_NOTE = 0.6
FALL_WRONG = 1.2
"""Nats per sample that the entropy has lost since the start; at most 0.3 in healthy runs, 0.7 to 1.8 without a
divergence term.
"""
BELOW_NOTE = 1.0
BELOW_WRONG = 1.5
"""Nats per sample below what the teacher gives held-out speech; 0.5 in released runs."""
PITCH_NOTE = 2.3
PITCH_WRONG = 3.0
PITCH_GUESS = math.log(NUM_BINS) + math.log(2)
"""Cross-entropy of the pitch predictor: a guess, and where it counts as not learned; 1.7 to 1.9 in healthy runs."""


def floor_collapse(run: RunFolder) -> Verdict | None:
    """Log-scales on the floor, where the divergence has no gradient."""
    share = run.last("floor_share")
    if share is None:
        return None
    weights = run.recipe.loss.weights
    command = None
    if "regularizer" in weights:
        command = run.command(
            "--loss.weights.regularizer", f"{10 * max(weights['regularizer'], 0.1):g}", *run.longer(1.5)
        )
    return graded(share, FLOOR_NOTE, FLOOR_WRONG, f"floor_share {share:.4f}", command)


def scale_limit(run: RunFolder) -> Verdict | None:
    """A lower limit of the log-scales that speech needs to go below."""
    limit = getattr(run.recipe.model, "log_scale_min", None)
    if limit is None:
        return None
    return graded(
        limit,
        SCALE_NOTE,
        SCALE_WRONG,
        f"model.log_scale_min {limit:g} (at -2 the released teacher loses 0.01 bits, at -1 0.05)",
        run.command("--model.log_scale_min", "-7", fresh_run=True),
    )


def divergence_clipped(run: RunFolder) -> Verdict | None:
    """The newest logs still count much of the divergence as less than it is."""
    clipped = run.values("kl")
    whole = run.values("kl_nats")
    if not len(clipped) or len(clipped) != len(whole):
        return None
    lost = 1.0 - float(np.mean(clipped[-5:])) / max(float(np.mean(whole[-5:])), 1e-9)
    loss = run.recipe.loss
    evidence = (
        f"kl {clipped[-5:].mean():.3f} of kl_nats {whole[-5:].mean():.3f}; kl_clip {loss.kl_clip:g} for "
        f"{loss.kl_clip_steps} of {run.step} steps"
    )
    if lost <= CLIPPED_SHARE:
        return Verdict("healthy", evidence)
    return Verdict("worth knowing", evidence, run.command("--loss.kl_clip_steps", str(run.step // 2), *run.longer(1.5)))


def far_from_teacher(run: RunFolder) -> Verdict | None:
    """KL(student || teacher) without clipping or regulariser."""
    kl = run.last("kl_nats")
    if kl is None:
        return None
    command = run.command("--loss.weights.kl", f"{2.5 * run.recipe.loss.weights.get('kl', 0.2):g}", *run.longer(1.5))
    return graded(kl, KL_NOTE, KL_WRONG, f"kl_nats {kl:.3f}", command if "kl" in run.recipe.loss.weights else None)


def low_entropy(run: RunFolder) -> Verdict | None:
    """The student's entropy against its own at the start, and against its teacher's nats on held-out speech.

    The teacher takes part where its run lies here.
    """
    entropy = run.last("entropy")
    course = run.values("entropy")
    if entropy is None:
        return None
    start = float(course[:3].mean())
    command = run.command(*run.longer(1.5)) if "kl" in run.recipe.loss.weights else None
    own = graded(
        start - entropy,
        FALL_NOTE,
        FALL_WRONG,
        f"entropy {start:.2f} at the start, {entropy:.2f} nats per sample now",
        command,
    )
    nats = _teacher_nats(run)
    if nats is None:
        return own
    return worse(
        own, graded(nats - entropy, BELOW_NOTE, BELOW_WRONG, f"its teacher gives held-out speech {nats:.2f}", command)
    )


def _teacher_nats(run: RunFolder) -> float | None:
    """Mean negative log-density of the teacher on held-out crops, from its own run folder."""
    if not Path(run.recipe.teacher).is_dir():
        return None
    try:
        bits = read_run(run.recipe.teacher).last("bits")
    except WavedistillError:
        return None
    return None if bits is None else (bits - 15.0) * math.log(2.0)


def divergence_alone(run: RunFolder) -> Verdict | None:
    """No spectral term beside the divergence."""
    if not isinstance(run.recipe, StudentRecipe):
        return None
    weights = run.recipe.loss.weights
    evidence = "terms: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    if {"stft", "mel"} & {name for name, weight in weights.items() if weight > 0}:
        return Verdict("healthy", evidence)
    return Verdict("wrong" if run.recipe.model.mel is not None else "worth knowing", evidence)


def no_divergence(run: RunFolder) -> Verdict | None:
    """No divergence beside the spectral terms."""
    if not isinstance(run.recipe, StudentRecipe):
        return None
    weight = run.recipe.loss.weights.get("kl", 0.0)
    if weight > 0:
        return Verdict("healthy", f"loss.weights.kl {weight:g}")
    return Verdict("worth knowing", "loss.weights has no kl")


def pitch_not_learned(run: RunFolder) -> Verdict | None:
    """Cross-entropy of the pitch predictor, or that nothing trains it."""
    recipe = run.recipe
    pitch = run.last("pitch")
    if isinstance(recipe, StudentRecipe):
        if not recipe.model.source_order:
            return None
        if pitch is None:
            if recipe.start_from or recipe.run.init_from:
                return Verdict("worth knowing", "loss.weights has no pitch: the predictor stays as it came")
            return Verdict("wrong", f"model.source_order {recipe.model.source_order}, but loss.weights has no pitch")
    elif not isinstance(recipe, FlowRecipe) or pitch is None:
        return None
    evidence = f"pitch {pitch:.2f} nats (a guess: {PITCH_GUESS:.2f})"
    return graded(pitch, PITCH_NOTE, PITCH_WRONG, evidence, run.command(*run.longer(3)))


def spectrum_stands_still(run: RunFolder) -> Verdict | None:
    """``pitch`` falls, ``stft`` does not: the harmonic source does all the work."""
    if not {"stft", "pitch"} <= getattr(getattr(run.recipe, "loss", None), "weights", {}).keys():
        return None
    stft = run.values("stft", "valid")
    pitch = run.values("pitch", "valid")
    if len(stft) < 3 or len(pitch) != len(stft):
        return Verdict("not checked", f"validations: {len(stft)}; 3 are needed")
    falls = {name: 1.0 - float(values[-1] / values[0]) for name, values in (("pitch", pitch), ("stft", stft))}
    evidence = (
        f"since the first validation pitch fell by {100 * falls['pitch']:.0f} %, stft by {100 * falls['stft']:.0f} %, "
        f"to {stft[-1]:.3f}"
    )
    stands = falls["pitch"] > 0.2 and falls["stft"] < 0.05
    command = run.command("--loss.weights.stft", f"{2 * run.recipe.loss.weights['stft']:g}", *run.longer(2))
    return Verdict("worth knowing" if stands else "healthy", evidence, command if stands else None)
