"""The demo's tab "Notes": its endpoint, and the tab itself in a real headless Chromium."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from helpers.tiny_models import STACK, shaken
from helpers.web_browser import click, free_port, opened, tabs_of

from wavedistill.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
from wavedistill.models.pretrained import save_pretrained
from wavedistill.models.wavenet import WaveNet, WaveNetConfig
from wavedistill.notes.template import note_template


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[str]:
    """A tiny teacher and student of notes, and a student of speech."""
    folder = tmp_path_factory.mktemp("checkpoints")
    small = {"stack": STACK, "cond_channels": 8}
    speakers = {"speakers": ["piano", "flute"]}
    models = {
        "teacher": shaken(WaveNet, WaveNetConfig(linear_order=0, **small, **speakers), 0),
        "notes": shaken(ParallelWaveNet, ParallelWaveNetConfig(num_flows=1, **small, **speakers), 0),
        "speech": shaken(ParallelWaveNet, ParallelWaveNetConfig(num_flows=1, **small), 0),
    }
    return [str(save_pretrained(model, folder / name)) for name, model in models.items()]


@pytest.fixture(scope="module")
def served(app, checkpoints, outside):
    served = app.launch(free_port(), checkpoints, block=False, quiet=True)
    yield served
    served.close()


def test_models_of_notes_are_kept_apart(served, checkpoints):
    teacher, notes, speech = checkpoints
    models = served.models
    assert list(models.notes) == [notes, teacher], "the student first"
    assert models.notes[notes] == ["piano", "flute"]
    assert models.students == [speech] and models.teachers == [] and models.speakers == []


def test_without_a_model_of_notes_there_is_no_tab(app, checkpoints):
    labels = [tabs_of(app.build_demo(c)) for c in (checkpoints, checkpoints[2:])]
    assert "Notes" in labels[0] and "Notes" not in labels[1]


@pytest.fixture
def play(app, served):
    notes = app.notes.Notes(served.models)

    def play(phrase="Note", note="C4", seconds=0.8, seed=0):
        return notes.play(phrase, note, next(iter(served.models.notes)), "flute", 96, seconds, seed, 1.0)

    return play


def test_a_chord_sounds_together_and_a_scale_in_turn(play):
    (rate, note), caption, _ = play()
    assert rate == 16000 and note.dtype == np.int16 and len(note) == 0.8 * rate and "flute: C4" in caption
    (_, chord), caption, _ = play("Chord")
    assert len(chord) == len(note) and "C4 E4 G4" in caption and not np.array_equal(chord, note)
    (_, scale), caption, _ = play("Scale", "F4")
    assert "F4 G4 A4 A#4**" in caption, "as far as the keys reach"
    assert len(scale) == (3 * 0.4 + 0.8) * rate


def test_seed_and_errors(app, play):
    import gradio

    first, again, other = (play(seed=seed)[0][1] for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(play(seed=None)[0][1], play(seed=0)[0][1])
    with pytest.raises(gradio.Error, match="is no note"):
        play(note="X4")


def test_a_mix_is_the_sum_and_never_clips(app):
    a = note_template(60, 0.5)
    b = note_template(64, 0.5)
    mixed = app.notes.mixed([0.2 * a, 0.2 * b], 100)
    assert torch.allclose(mixed[:100], 0.2 * a[:100]) and torch.allclose(
        mixed[100:8000], 0.2 * (a[100:] + b[:-100]), atol=1e-7
    )
    assert app.notes.mixed([torch.ones(10), torch.ones(10)], 0).max() == pytest.approx(0.99)


def test_page_plays_keys_and_chords(browser, served, outside, tmp_path):
    with opened(browser, served.address) as page:
        page.get_by_role("tab", name="Notes").click()
        caption = page.locator("#notes-caption")
        click(page, "E4")
        caption.get_by_text("piano: E4").wait_for()
        page.locator("#notes-mel img").wait_for()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").or_(page.get_by_label("Download")).locator(
                "visible=true"
            ).first.click()
        download.value.save_as(tmp_path / "note.wav")
        assert soundfile.info(tmp_path / "note.wav").duration == pytest.approx(1.5)
        click(page, "Chord")  # of the key pressed last
        caption.get_by_text("piano: E4 G#4 B4").wait_for()
        page.get_by_role("listbox", name="Instrument").or_(page.get_by_label("Instrument", exact=True)).locator(
            "visible=true"
        ).first.click()
        page.get_by_role("option", name="flute", exact=True).click()
        click(page, "C3")
        caption.get_by_text("flute: C3").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert outside == []
