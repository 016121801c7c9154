"""The evaluation report's tables of nats: their rows, what is stored, and how untrustworthy results are shown."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers.tiny_models import speech_like, tiny_student, tiny_teacher, unstable_student

from wavedistill.evaluation import held_out, nats
from wavedistill.evaluation.held_out import held_out_rows
from wavedistill.evaluation.nats import SampleStore, excerpt_rows, nats_rows
from wavedistill.evaluation.report import EvaluationReport, likelihood_notes
from wavedistill.evaluation.results_cache import Results
from wavedistill.evaluation.statistics import Statistic, plain
from wavedistill.evaluation.systems import Clip, LoadedModel
from wavedistill.evaluation.tables import held_out_table, nats_table
from wavedistill.losses.divergence import first_counted

CLIPS = [Clip(f"{i}", "a", torch.round(speech_like(0.08, seed=i) * 32768) / 32768) for i in range(3)]
TEACHER, STUDENT, UNSTABLE = (
    LoadedModel(name, name, model)
    for name, model in (("T", tiny_teacher()), ("S", tiny_student()), ("U", unstable_student()))
)


def results(folder=None):
    return Results(folder, {}, False)


def test_rows_of_all_clips_and_of_excerpts():
    stores = {"T": SampleStore(TEACHER.system(0))}
    rows = nats_rows(results(), [STUDENT, TEACHER], CLIPS, 0)
    excerpts = excerpt_rows(results(), [STUDENT, TEACHER], CLIPS, stores, 0)
    assert list(rows) == ["S ‖ T"] and list(excerpts) == ["T", "S ‖ T"]
    row = excerpts["S ‖ T"]
    own = excerpts["T"]
    assert own["recording"] == row["recording"]  # of the same samples
    assert row["kl"].n == 3 and row["kl"].mean > 0 and row["cross_entropy"].mean > row["entropy"].mean
    assert {"own", "entropy", "recording", "std_ratio", "mean_abs_ratio"} == own.keys()
    made = stores["T"].system.generate(CLIPS)
    skip = first_counted(STUDENT.model, TEACHER.model, len(CLIPS[0].audio))
    ratios = [float(one[skip:].std() / clip.audio[skip:].std()) for one, clip in zip(made, CLIPS, strict=True)]
    assert own["std_ratio"].mean == pytest.approx(sum(ratios) / 3, rel=1e-4)
    text = nats_table("Nats per sample", excerpts)
    assert "| T |" in text and len({line.count("|") for line in text.splitlines()[2:]}) == 1


def test_ratios_are_of_what_was_said_over_the_recording():
    values = [
        dict(samples=10, std=0.2, real_std=0.1, mean_abs=0.3, real_mean_abs=0.3),
        dict(samples=30, std=0.1, real_std=0.1, mean_abs=1, real_mean_abs=0),
    ]
    found = nats._statistics(values, ())
    assert found["std_ratio"].mean == pytest.approx((2 * 10 + 1 * 30) / 40) and found["mean_abs_ratio"][
        0::2
    ] == pytest.approx((1.0, 1))


def test_a_teacher_speaks_once_for_all_measures():
    calls = []
    system = TEACHER.system(0)
    counted = SampleStore(
        system.__class__(system.name, system.key, lambda clips: calls.append(len(clips)) or system.generate(clips))
    )
    made = counted.system.generate(CLIPS)
    excerpt_rows(results(), [TEACHER], CLIPS, {"T": counted}, 0)
    assert calls == [3] and torch.equal(counted.sample(CLIPS[1], CLIPS), made[1])
    late = SampleStore(system)
    torch.testing.assert_close(late.sample(CLIPS[1], CLIPS), made[1], atol=1e-4, rtol=0)


def test_recordings_under_students_stable_and_not(tmp_path, monkeypatch):
    models = [STUDENT, UNSTABLE, TEACHER]
    rows = held_out_rows(results(tmp_path), models, CLIPS)
    stable, unstable, teacher = rows.values()
    assert stable.nats.n == 3 and stable.backward_error < 1e-10 and stable.largest < 1000
    assert unstable.nats.n == 0 and unstable.sensitivity > 10
    assert unstable.steady_seconds.mean < stable.steady_seconds.mean == pytest.approx(0.08)
    with torch.no_grad():
        bits = [
            15 + float(-TEACHER.model.log_prob_per_sample(c.audio[None, None], TEACHER.mel(c)).mean()) / math.log(2)
            for c in CLIPS
        ]
    assert teacher.bits.mean == pytest.approx(sum(bits) / 3, abs=1e-4) and math.isnan(teacher.backward_error)
    lines = {line.split(" | ")[0].strip("| "): line for line in held_out_table(rows).splitlines()}
    assert (
        "not trustworthy" in lines["U"] and "0 of 3" in lines["U"] and "not trustworthy" not in lines["S"] + lines["T"]
    )
    json.dumps(plain(rows), allow_nan=False)
    monkeypatch.setattr(held_out, "student_likelihood", lambda *_: pytest.fail("stored results are there"))
    again = held_out_rows(results(tmp_path), models, CLIPS)
    assert held_out_table(again) == held_out_table(rows)


def test_an_inverse_that_overflows_is_said_to_diverge_after_a_resume_too(tmp_path, monkeypatch):
    broken = dict(
        samples=10,
        nats=math.nan,
        mean_square=math.inf,
        largest=math.inf,
        backward_error=math.nan,
        forward_error=math.nan,
        sensitivity=math.nan,
        steady_seconds=0.01,
        trusted=0.0,
    )
    fine = dict(
        broken,
        nats=1.0,
        mean_square=1.0,
        largest=3.0,
        backward_error=1e-12,
        forward_error=1e-9,
        sensitivity=0.1,
        trusted=1.0,
    )
    monkeypatch.setattr(held_out, "_inverted", lambda student, clips: [broken, fine, fine])
    for _ in range(2):
        row = held_out_rows(results(tmp_path), [STUDENT], CLIPS)["S"]
        assert (
            row.nats == pytest.approx((1.0, 0.0, 2))
            and row.largest == row.backward_error == row.forward_error == row.sensitivity == math.inf
        )
        assert "| S | 1.00 ± 0.00 (n 2) |" in held_out_table(
            {"S": row}
        ) and "| diverges | diverges | diverges | diverges |" in held_out_table({"S": row})


def test_without_a_student_nothing_is_inverted_and_notes_are_for_tables_that_are_there():
    assert held_out_rows(results(), [TEACHER], CLIPS) == {} and likelihood_notes(EvaluationReport("x"), 0.5) == []
    row = {"kl": Statistic(0.1, 0.01, 3)}
    assert len(likelihood_notes(EvaluationReport("x", divergences={"S ‖ T": row}), 0.5)) == 1
    assert len(likelihood_notes(EvaluationReport("x", excerpt_divergences={"S ‖ T": row}), 0.5)) == 1
