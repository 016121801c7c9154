"""Stored results: an evaluation that goes on, or that is widened, computes only what is missing."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers.tiny_models import speech_like

from wavedistill.errors import WavedistillError
from wavedistill.evaluation.results_cache import Results
from wavedistill.evaluation.statistics import Statistic, confidence_interval, means, plain
from wavedistill.evaluation.systems import Clip, System, digest, on_grid
from wavedistill.metrics import packages
from wavedistill.metrics.registry import Metric, choose_metrics, missing_packages

RATE = 8000
CLIPS = [Clip(f"c{i}", "a", on_grid(speech_like(0.1, RATE, seed=i))) for i in range(3)]


class CountedSystem:
    """A system that counts the clips it is asked for."""

    def __init__(self, gain: float = 0.5, name: str = "quiet") -> None:
        self.asked: list[list[str]] = []
        self.system = System(
            name,
            digest(str(gain)),
            lambda clips: self.asked.append([c.id for c in clips]) or [gain * c.audio for c in clips],
        )


class Counting:
    """Metrics of one metric each, the mean of what is said (or what ``value`` says), that count their calls."""

    def __init__(self, **values) -> None:
        self.calls = []
        self.metrics = {
            name: Metric(lambda c, made, rate, n=name, v=v: self.calls.append(n) or {n: v(made)})
            for name, v in values.items()
        }


def loudest(made):
    return float(made.abs().max())


@pytest.mark.parametrize("together", [(), ("quiet",)])
def test_a_metric_added_later_hears_the_stored_audio(tmp_path, together):
    counted = CountedSystem()
    first = Counting(peak=loudest)
    before = Results(tmp_path, first.metrics, False).quality([counted.system], CLIPS, RATE, together)
    spoken = len(counted.asked)
    both = Counting(peak=loudest, std=lambda made: float(made.std()))
    after = Results(tmp_path, both.metrics, False).quality([counted.system], CLIPS, RATE, together)
    assert both.calls == ["std"] * 3 and len(counted.asked) == spoken
    for old, new, clip in zip(before["quiet"], after["quiet"], CLIPS, strict=True):
        assert new == old | {"std": pytest.approx(float((0.5 * clip.audio).std()), rel=1e-3)}
    fewer = Results(tmp_path, first.metrics, False).quality([counted.system], CLIPS, RATE, together)
    assert fewer == before and first.calls == ["peak"] * 3


def test_a_batch_says_only_what_is_missing(tmp_path):
    counted = CountedSystem()
    metrics = Counting(peak=loudest).metrics
    Results(tmp_path, metrics, False).quality([counted.system], CLIPS, RATE, ["quiet"])
    next((tmp_path / "audio" / "quiet").glob("c1-*.wav")).unlink()
    Results(tmp_path, metrics, False).quality([counted.system], CLIPS, RATE, ["quiet"])  # all values are there
    Results(tmp_path, Counting(other=loudest).metrics, False).quality([counted.system], CLIPS, RATE, ["quiet"])
    assert counted.asked == [["c0", "c1", "c2"], ["c1"]]


def test_audio_that_another_system_wrote_over_is_not_taken(tmp_path):
    Results(tmp_path, Counting(peak=loudest).metrics, False).quality([CountedSystem(0.5).system], CLIPS, RATE)
    Results(tmp_path, Counting(peak=loudest).metrics, False).quality([CountedSystem(0.25).system], CLIPS, RATE)
    counted = CountedSystem(0.5)
    values = Results(tmp_path, Counting(other=loudest).metrics, False).quality([counted.system], CLIPS, RATE)
    assert {i for asked in counted.asked for i in asked} == {"c0", "c1", "c2"}
    assert values["quiet"][0]["other"] == pytest.approx(0.5 * loudest(CLIPS[0].audio), abs=2e-5)


def test_a_new_version_of_a_metric_is_computed_again(tmp_path):
    old = {"peak": Metric(lambda c, made, rate: {"peak": 1.0})}
    new = {"peak": Metric(lambda c, made, rate: {"peak": 2.0}, version=2)}
    for metrics, expected in ((old, 1.0), (new, 2.0), (new, 2.0)):
        assert (
            Results(tmp_path, metrics, False).quality([CountedSystem().system], CLIPS, RATE)["quiet"][0]["peak"]
            == expected
        )


def test_values_are_the_same_with_and_without_a_folder(tmp_path):
    metrics = {
        "rest": Metric(
            lambda c, made, rate: {"rest": float((made * 32768 - (made * 32768).round()).abs().max()), "none": math.nan}
        )
    }
    kept, not_kept = (
        Results(folder, metrics, False).quality([CountedSystem(0.3).system], CLIPS, RATE)["quiet"]
        for folder in (tmp_path, None)
    )
    for one, other in zip(kept, not_kept, strict=True):
        assert one["rest"] == other["rest"] == 0 and math.isnan(one["none"]) and math.isnan(other["none"])


def test_only_a_system_that_makes_its_audio_has_a_speed(tmp_path):
    reads = System("reads", "r", lambda clips: [c.audio for c in clips], has_speed=False)
    values = Results(None, Counting(peak=loudest).metrics, False).quality([reads, CountedSystem().system], CLIPS, RATE)
    assert all("real_time" not in v for v in values["reads"]) and all(v["real_time"] > 0 for v in values["quiet"])


def test_broken_audio_is_named():
    broken = System("broken", "b", lambda clips: [c.audio * math.nan for c in clips])
    with pytest.raises(WavedistillError, match="broken gives NaN or infinity for clip c0"):
        Results(None, Counting(peak=loudest).metrics, False).quality([broken], CLIPS, RATE)


def test_means_weigh_word_errors_by_words_and_leave_out_clips_without():
    values = {
        "x": [
            {"word_error_percent": 50.0, "words": 2, "stoi": 0.5},
            {"word_error_percent": 0.0, "words": 8, "stoi": math.nan},
            {"stoi": 0.7},
        ]
    }
    row = means(values)["x"]
    assert row.keys() == {"word_error_percent", "stoi"}
    assert row["word_error_percent"].mean == pytest.approx(10) and row["word_error_percent"].n == 2
    assert row["stoi"].mean == pytest.approx(0.6)
    assert means(values, [0])["x"]["stoi"].mean == 0.5


def test_confidence_intervals_of_means():
    low, high = confidence_interval(Statistic(10.0, 1.0, 5))
    assert (low, high) == pytest.approx((10 - 2.776, 10 + 2.776), abs=1e-3)  # Student's t with 4 degrees of freedom
    assert all(map(math.isnan, confidence_interval(Statistic(1.0, math.nan, 1))))
    stored = json.loads(json.dumps(plain({"a": [Statistic(1.0, math.nan, 1)]})))
    assert stored == {"a": [{"mean": 1.0, "standard_error": None, "n": 1, "interval": [None, None]}]}


def test_metrics_are_chosen_by_name(monkeypatch):
    assert choose_metrics(["level"]).keys() == {"level"} and not missing_packages(["level"])
    with pytest.raises(WavedistillError, match="no metric 'mos'. Metrics: pesq_wb, stoi, .*whisper"):
        choose_metrics(["level", "mos"])

    def nothing(name):
        raise ImportError(name)

    monkeypatch.setattr(packages.importlib, "import_module", nothing)
    missing = missing_packages()
    assert (
        choose_metrics(None).keys() == {"pitch", "level", "upper"}
        and missing["dnsmos"] == "speechmos.dnsmos"
        and missing["whisper"] == "faster_whisper"
    )
    with pytest.raises(WavedistillError, match=r"distillmos needs the package distillmos: pip install"):
        choose_metrics(["distillmos"])


def test_an_excerpt_that_is_cut_loses_its_text():
    clip = Clip("c", "a", torch.zeros(100), "hello")
    assert clip.excerpt(100) is clip and clip.excerpt(60).text is None and len(clip.excerpt(60).audio) == 60
