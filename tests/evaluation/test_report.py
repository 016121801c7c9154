"""The evaluation report: what it measures, and that an interrupted one goes on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from helpers.synthetic_voice import RATE, voice
from helpers.tiny_models import MEL, tiny_flow, tiny_student, tiny_teacher

from wavedistill.audio.io import load_audio, save_audio
from wavedistill.data.baseline import bits_per_sample, linear_prediction_bits
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.errors import WavedistillError
from wavedistill.evaluation import evaluate as module
from wavedistill.evaluation import nats
from wavedistill.evaluation import report as report_module
from wavedistill.evaluation import results_cache as stored_results
from wavedistill.evaluation.comparison import Comparison, Difference
from wavedistill.evaluation.evaluate import EvaluateConfig, evaluate
from wavedistill.evaluation.likelihood import student_divergence
from wavedistill.evaluation.report import EvaluationReport
from wavedistill.evaluation.results_cache import Results
from wavedistill.evaluation.statistics import Statistic, weighted
from wavedistill.evaluation.systems import Clip, System, load_clips, load_models
from wavedistill.evaluation.tables import comparison_table, quality_table
from wavedistill.metrics.registry import COLUMNS, METRICS, Reference, installed_metrics
from wavedistill.models.pretrained import save_pretrained

# the other metrics have tests of their own, and their networks take seconds a clip
SIGNAL = list(installed_metrics(["pesq_wb", "stoi", "mcd", "f0", "pitch", "level"]))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A manifest of three test clips of two speakers (and a training clip), a teacher and a student."""
    folder = tmp_path_factory.mktemp("corpus")
    entries = []
    for i, (speaker, split) in enumerate([("a", "test"), ("a", "test"), ("b", "test"), ("b", "train")]):
        save_audio(folder / f"{i}.wav", voice(1.1 + 0.1 * i, pitch=110 + 20 * i, seed=i), RATE)
        entries.append(Entry(id=f"clip/{i}", audio=f"{i}.wav", duration=1.1 + 0.1 * i, speaker=speaker, split=split))
    write_manifest(folder / "manifest.jsonl", entries)
    save_pretrained(tiny_teacher(), folder / "teacher")
    save_pretrained(tiny_student(), folder / "student")
    save_pretrained(tiny_flow(), folder / "flow")
    return folder


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """One whole evaluation and its folder."""
    out = tmp_path_factory.mktemp("evaluation")
    config = EvaluateConfig(teacher_clips=2, teacher_seconds=0.3, metrics=SIGNAL)
    return evaluate(corpus / "manifest.jsonl", [corpus / "teacher", corpus / "student"], config, out=out), out, config


def test_report_has_every_system_and_its_number_of_clips(finished):
    report, _, _ = finished
    assert {"original", "student", "Griffin-Lim", "8-bit mu-law"} <= report.quality.keys()
    assert "teacher" not in report.quality and "teacher" in report.excerpts
    assert report.quality["student"]["level_db"].n == 3
    assert report.excerpts["teacher"]["level_db"].n == 2
    assert (
        report.quality["original"]["level_db"].mean == 0
        and report.quality["original"]["log_spectral_distance"].mean == 0
    )
    assert (
        report.quality["8-bit mu-law"]["log_spectral_distance"].mean
        < report.quality["student"]["log_spectral_distance"].mean
    )


def test_quality_matches_known_order_where_the_packages_are(finished):
    pytest.importorskip("pesq"), pytest.importorskip("pyworld")
    rows = finished[0].quality
    assert rows["original"]["pesq_wb"].mean > rows["8-bit mu-law"]["pesq_wb"].mean > rows["student"]["pesq_wb"].mean
    assert rows["original"]["mcd"].mean == pytest.approx(0, abs=1e-9)
    assert "WORLD" in rows


def test_bits_stand_beside_linear_prediction_on_the_same_clips(corpus, finished):
    table = finished[0].bits["teacher"]
    assert table.keys() == {"a", "b", "all"}
    clips = load_clips(
        corpus / "manifest.jsonl",
        "test",
        limit=None,
        speakers=["b"],
        min_seconds=1,
        sample_rate=MEL.sample_rate,
        hop_length=MEL.hop_length,
    )
    assert table["b"]["linear_prediction_causal"].mean == pytest.approx(
        linear_prediction_bits([clips[0].audio]), abs=1e-6
    )
    log_prob = tiny_teacher().log_prob_per_sample(
        clips[0].audio[None, None], load_models([str(corpus / "teacher")], "cpu")[0].mel(clips[0])
    )
    assert table["b"]["model"].mean == pytest.approx(bits_per_sample(float(log_prob.detach().mean())), abs=1e-3)


def test_one_stage_flow_stands_beside_teacher_and_student(corpus, tmp_path):
    config = EvaluateConfig(limit=2, anchors=False, teacher_clips=1, teacher_seconds=0.1, metrics=["level"])
    report = evaluate(corpus, [corpus / kind for kind in ("teacher", "student", "flow")], config, out=tmp_path)
    assert report.quality.keys() == {"original", "student", "flow"} and report.quality["flow"]["level_db"].n == 2
    assert report.bits.keys() == {"teacher", "flow"} and report.divergences.keys() == {"student ‖ teacher"}
    clip = load_clips(
        corpus, "test", limit=1, speakers=None, min_seconds=1, sample_rate=MEL.sample_rate, hop_length=MEL.hop_length
    )[0]
    log_prob = tiny_flow().log_prob(clip.audio[None, None], load_models([str(corpus / "flow")], "cpu")[0].mel(clip))
    alone = evaluate(corpus, corpus / "flow", EvaluateConfig(limit=1, anchors=False, metrics=["level"]))
    assert alone.bits["flow"][clip.speaker]["model"].mean == pytest.approx(
        bits_per_sample(float(log_prob.detach()) / len(clip.audio)), abs=1e-3
    )
    assert "| speaker | teacher | flow | linear prediction, causal |" in report.markdown


def test_models_of_other_mels_have_bits_tables_of_their_own():
    def bits(mel):
        return {
            "a": {
                k: Statistic(v, math.nan, 1)
                for k, v in (("model", 1.0), ("linear_prediction_causal", 2.0), ("linear_prediction_mel", mel))
            }
        }

    report = EvaluationReport(
        "x", {"original": {"level_db": Statistic(0.0, 0.0, 1)}}, bits={"p": bits(3.0), "q": bits(4.0), "r": bits(3.0)}
    )
    assert "| speaker | p | r | linear" in report.markdown and "| speaker | q | linear" in report.markdown


def test_divergence_is_reported_and_is_zero_between_equal_gaussians(finished):
    values = finished[0].divergences["student ‖ teacher"]
    assert values["kl"].mean > 0 and values["kl"].n == 3 and math.isfinite(values["entropy"].mean)


def test_divergence_agrees_with_monte_carlo():
    """E[log q(x) - log p(x)] over the student's own samples, with the exact densities of both."""
    teacher = tiny_teacher()
    student = tiny_student()
    mel = torch.randn(1, MEL.n_mels, 40, generator=torch.Generator().manual_seed(0)) - 4
    closed = sum(student_divergence(student, teacher, mel, None, None, seed)["kl"] for seed in range(20)) / 20
    from wavedistill.losses.divergence import first_counted

    estimates = []
    for seed in range(60):
        noise = torch.randn(1, 1, 40 * MEL.hop_length, generator=torch.Generator().manual_seed(100 + seed))
        with torch.inference_mode():
            output = student.rsample(noise, mel)
            gap = student.own_log_prob(output) - teacher.log_prob_per_sample(output.audio, mel, dequantize=False)
        estimates.append(float(gap[:, first_counted(student, teacher, gap.shape[1]) :].mean()))
    error = torch.tensor(estimates).std() / 60**0.5
    assert closed == pytest.approx(sum(estimates) / 60, abs=5 * float(error) + 0.01 * closed)


def test_files_tell_the_same_as_the_report(finished):
    report, out, _ = finished
    assert (out / "report.md").read_text() == report.markdown
    stored = json.loads((out / "report.json").read_text())
    assert stored["quality"]["student"]["level_db"]["mean"] == pytest.approx(report.quality["student"]["level_db"].mean)
    assert stored["comparisons"] and stored["comparisons"][0]["difference"]["verdict"] == "too few clips"
    for word in ("| student |", "Griffin-Lim", "linear prediction", "student ‖ teacher", "±"):
        assert word in report.markdown
    assert len(list((out / "audio" / "student").glob("*.wav"))) == 5  # three clips, two excerpts


def test_a_second_run_computes_only_what_is_missing(corpus, finished, monkeypatch):
    report, out, config = finished
    lost = next((out / "clips").glob("student-????????/clip_1-*.json"))
    lost.unlink()
    spoken = []
    real = stored_results.timed
    monkeypatch.setattr(
        stored_results, "timed", lambda system, clips: spoken.append((system.name, len(clips))) or real(system, clips)
    )
    again = evaluate(corpus / "manifest.jsonl", [corpus / "teacher", corpus / "student"], config, out=out)
    assert set(spoken) == {("student", 1)} and len(spoken) <= 2
    assert again.bits == report.bits
    for name in ("level_db", "log_spectral_distance"):
        assert again.quality["student"][name] == pytest.approx(report.quality["student"][name], nan_ok=True)


def test_other_weights_under_the_same_name_are_measured_anew(corpus, finished, monkeypatch):
    _, out, config = finished
    with torch.no_grad():
        changed = tiny_student()
        next(changed.parameters()).add_(0.1)
    save_pretrained(changed, corpus / "changed" / "student")
    spoken = []
    real = stored_results.timed
    monkeypatch.setattr(
        stored_results, "timed", lambda system, clips: spoken.append(system.name) or real(system, clips)
    )
    evaluate(corpus / "manifest.jsonl", corpus / "changed" / "student", replace(config, limit=1), out=out)
    assert spoken == ["student"]


def test_limit_speakers_and_wrong_input(corpus):
    config = EvaluateConfig(limit=2, speakers=["a"], anchors=False, metrics=["level"])
    report = evaluate(corpus, corpus / "student", config)
    assert report.quality.keys() == {"original", "student"} and report.quality["student"]["level_db"].n == 2
    with pytest.raises(WavedistillError, match="no speaker 'zoe'. Speakers: a, b"):
        evaluate(corpus, corpus / "student", EvaluateConfig(speakers=["zoe"]))
    with pytest.raises(WavedistillError, match="no clip of at least 60 s"):
        evaluate(corpus, corpus / "student", EvaluateConfig(min_seconds=60))
    with pytest.raises(WavedistillError, match="no-such"):
        evaluate(corpus, "no-such-checkpoint")
    with pytest.raises(WavedistillError, match="at least 1: given 0"):
        evaluate(corpus, corpus / "student", EvaluateConfig(limit=0))
    with pytest.raises(WavedistillError, match="at least 1, and inverse_clips at least 0: given 0 and 8"):
        EvaluateConfig(teacher_clips=0)
    with pytest.raises(WavedistillError, match="above 0: given 3 and -1"):
        EvaluateConfig(inverse_seconds=-1)


def test_standard_errors():
    assert weighted([1.0, 2.0, 3.0], [1, 1, 1]) == pytest.approx((2.0, 1 / math.sqrt(3), 3))
    assert weighted([1.0, math.nan], [1, 1])[0::2] == (1.0, 1)
    assert weighted([1.0, 4.0], [3.0, 1.0]).mean == 1.75
    shown = [str(Statistic(*x, 4)) for x in ((0.5, 0.01), (2.5, 0.125), (25, 1.0), (1234, 56))]
    assert shown == ["0.500 ± 0.010", "2.50 ± 0.12", "25.0 ± 1.0", "1234 ± 56"]


def test_tables_are_sound_markdown(finished):
    for block in finished[0].markdown.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1


def test_a_metric_without_value_for_every_clip_says_so():
    row = {
        "stoi": Statistic(0.9, math.nan, 1),
        "pesq_wb": Statistic(3.0, 0.1, 3),
        "mcd": Statistic(math.nan, math.nan, 0),
    }
    table = quality_table("Quality", {"x": row})
    assert "| x | 3.00 ± 0.10 | 0.900 (n 1) | - | 3 |" in table


def test_level_clipping_and_gross_pitch_are_in_the_json_only(finished):
    report = finished[0]
    assert "level" not in report.markdown
    stored = report.to_json()["quality"]["student"]
    assert {"level_db", "clipped_percent", "log_spectral_distance"} <= stored.keys()
    low, high = stored["level_db"]["interval"]
    assert low < stored["level_db"]["mean"] < high


def test_speakers_have_tables_of_their_own_in_the_json(finished):
    report, _, _ = finished
    assert report.by_speaker.keys() == {"a", "b"}
    parts = [report.by_speaker[s]["student"]["level_db"] for s in ("a", "b")]
    assert [p.n for p in parts] == [2, 1]
    assert sum(p.mean * p.n for p in parts) / 3 == pytest.approx(report.quality["student"]["level_db"].mean)


def test_picture_shows_every_system_and_metric(finished, tmp_path, monkeypatch):
    report, out, _ = finished
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    drawn = {}
    monkeypatch.setattr(
        report_module, "plot_systems", lambda panels, systems, path: drawn.update(panels=panels, systems=systems)
    )
    report.plot(tmp_path / "x.png")
    assert set(drawn["systems"]) == {*report.quality, "teacher (excerpts)"}
    titles = {
        COLUMNS[m].title for m in report.quality["student"] if m in COLUMNS and COLUMNS[m].higher_is_better is not None
    }
    assert drawn["panels"].keys() == titles
    for points in drawn["panels"].values():
        assert all(low <= mean <= high or math.isnan(low) for mean, low, high in points.values())


def test_a_folder_stands_beside_the_checkpoints_and_is_compared(corpus, tmp_path):
    for i in range(3):
        audio, rate = load_audio(corpus / f"{i}.wav")
        save_audio(tmp_path / "theirs" / f"clip/{i}.wav", audio[:-2000], rate)
    theirs = {"theirs": tmp_path / "theirs"}
    config = EvaluateConfig(anchors=False, metrics=["level", *SIGNAL[:1]])
    report = evaluate(corpus, corpus / "student", config, folders=theirs)
    assert list(report.quality) == ["original", "student", "theirs"] and "real_time" not in report.quality["theirs"]
    assert {(c.a, c.b, c.clips, c.difference.verdict) for c in report.comparisons} <= {
        ("student", "theirs", "all clips", "too few clips")
    }
    assert any("theirs: 3 of 3 files are shorter" in note for note in report.notes)
    alone = evaluate(corpus, config=EvaluateConfig(anchors=False, metrics=["level"]), folders=theirs)
    assert list(alone.quality) == ["original", "theirs"] and not alone.comparisons
    with pytest.raises(WavedistillError, match="two systems are called 'student'"):
        evaluate(corpus, corpus / "student", config, folders={"student": tmp_path / "theirs"})
    with pytest.raises(WavedistillError, match="nothing to evaluate"):
        evaluate(corpus)


def test_pairs_with_a_teacher_are_compared_on_its_excerpts():
    systems = [System(name, name, list) for name in ("original", "s", "f", "WORLD")]
    everywhere, on_excerpts = module._pairs(None, ["s", "f"], ["t", "u"], systems)
    assert everywhere == [("s", "f")]
    assert set(on_excerpts) == {("s", "t"), ("f", "t"), ("s", "u"), ("f", "u"), ("t", "u")}
    assert module._pairs([("s", "WORLD"), ("t", "original")], ["s", "f"], ["t"], systems) == (
        [("s", "WORLD")],
        [("t", "original")],
    )
    with pytest.raises(WavedistillError, match="no system 'x' to compare. Systems: original, s, f, WORLD, t"):
        module._pairs([("s", "x")], ["s", "f"], ["t"], systems)


def test_comparisons_are_tabled_by_pair():
    one = Comparison("s", "t", "excerpts", "pesq_wb", Difference(0.25, 0.1, 0.4, 20, "better"))
    two = Comparison("s", "t", "excerpts", "stoi", Difference(0.0, -0.01, 0.012, 20, "indistinguishable"))
    few = Comparison("s", "u", "excerpts", "stoi", Difference(0.5, math.nan, math.nan, 2, "too few clips"))
    lines = comparison_table([one, two, few]).splitlines()
    assert lines[-3:] == [
        "| s − t (excerpts) | PESQ-wb | +0.250 | +0.100 … +0.400 | better | 20 |",
        "|  | STOI | +0.000 | -0.010 … +0.012 | indistinguishable | 20 |",
        "| s − u (excerpts) | STOI | +0.500 | - | too few clips | 2 |",
    ]


def test_only_english_texts_are_recognised(tmp_path):
    entries = []
    for i, (speaker, text) in enumerate(
        [("en", "Please enter the number of the agent"), ("fr", "Entrez le code"), ("en", None)]
    ):
        save_audio(tmp_path / f"{i}.wav", voice(1.1, seed=i), RATE)
        entries.append(Entry(id=f"{i}", audio=f"{i}.wav", duration=1.1, speaker=speaker, text=text, split="test"))
    write_manifest(tmp_path / "manifest.jsonl", entries)
    clips = load_clips(tmp_path, "test", limit=None, speakers=None, min_seconds=1, sample_rate=RATE, hop_length=256)
    assert [clip.text for clip in clips] == ["Please enter the number of the agent", None, None]
    french = Reference(clips[1].audio, clips[1].text)
    assert METRICS["whisper"].compute(french, clips[1].audio, RATE) == {}


def test_three_clips_are_said_to_be_too_few_and_what_to_do_about_it(finished):
    report, _, _ = finished
    (note,) = [note for note in report.notes if "too few" in note]
    assert note.startswith("3 clips are too few for a conclusion, which needs at least 6: ")
    assert "--limit" in note and "--split" in note and "wavedistill prepare" in note and note in report.markdown
    assert report_module.few_clips_note(1).startswith("1 clip is too few")


def test_enough_clips_get_no_such_note():
    clips = [Clip(str(i), "a", torch.zeros(10)) for i in range(6)]
    report = EvaluationReport("x", {"original": {"pitch_cents": Statistic(0.0, 0.0, 6)}})
    notes = report_module.quality_notes(report, clips, ["pesq_wb", "WORLD"])
    assert not any("too few" in note for note in notes)
    assert "Left out, since packages are missing: pesq_wb, WORLD." in notes[-1]


def test_pitch_is_measured_without_any_extra_package(finished):
    """By the package's own estimator: the base install has it."""
    rows = finished[0].quality
    assert rows["original"]["pitch_cents"].mean == 0 and rows["8-bit mu-law"]["pitch_cents"].mean < 10
    assert "pitch cents" in finished[0].markdown and "pitch V/UV %" in finished[0].markdown


def test_a_recording_passes_through_a_teacher_once_for_all_students(corpus, monkeypatch):
    """Two students beside one teacher: each of the recordings is scored for both by one pass."""
    save_pretrained(tiny_student(), corpus / "second")
    passed = []
    real = nats.sample_nats
    monkeypatch.setattr(nats, "sample_nats", lambda *given: passed.append(1) or real(*given))
    models = load_models([str(corpus / name) for name in ("teacher", "student", "second")], "cpu")
    clips = load_clips(
        corpus, "test", limit=None, speakers=None, min_seconds=1, sample_rate=RATE, hop_length=MEL.hop_length
    )
    rows = nats.nats_rows(Results(None, {}, False), models, clips, 0)
    assert len(passed) == len(clips) == 3 and len(rows) == 2
    assert rows["student ‖ teacher"]["recording"] == rows["second ‖ teacher"]["recording"]
