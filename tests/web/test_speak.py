"""The demo's tab "Text": its function, and the tab itself in a real headless Chromium."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.tiny_models import tiny_teacher
from helpers.web_browser import click, opened, tabs_of

from wavedistill.models.pretrained import save_pretrained

pytest.importorskip("hibari")


def test_the_tab_needs_a_student_and_the_program(app, student, tmp_path, monkeypatch):
    teacher = str(save_pretrained(tiny_teacher(), tmp_path / "teacher"))
    assert "Text" in tabs_of(app.build_demo([student]))
    assert "Text" not in tabs_of(app.build_demo([teacher]))
    monkeypatch.setattr(app, "tts_is_installed", lambda: False)
    assert "Text" not in tabs_of(app.build_demo([student]))


def test_both_waveforms_and_whose_they_are(app, served, student):
    import gradio

    reader = app.speak.Reader(served.models)
    read = reader.read("Seven keys.", student, 0, 1.0, None)
    (source_rate, source), (rate, spoken) = read.source, read.student
    assert source_rate == 24000 and source.dtype == spoken.dtype == np.int16
    assert len(source) / source_rate == pytest.approx(len(spoken) / rate, abs=0.05)
    assert "by hibari-tts, 24 kHz" in read.source_caption and "in one pass" in read.student_caption
    assert read.times.startswith("Read aloud in ")
    with pytest.raises(gradio.Error, match="no text to speak"):
        reader.read(" ", student, 0, 1.0, None)


def test_page_speaks_a_text(browser, served, outside):
    with opened(browser, served.address) as page:
        page.get_by_role("tab", name="Text", exact=True).click()
        page.get_by_label("Text (English)").fill("Seven keys in a jar.")
        click(page, "Speak")
        page.get_by_text("by hibari-tts, 24 kHz").wait_for()
        page.get_by_text("Read aloud in").wait_for()
        page.locator("#text-mels img").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert outside == []
