"""What a visitor sees on a wide and on a narrow screen, in a real headless Chromium: before a button is pressed, while
it computes, and after.
"""

from __future__ import annotations

import itertools

import pytest
from helpers.tiny_models import STACK, shaken
from helpers.web_browser import click, free_port, open_options, opened, tabs_of

from wavedistill.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
from wavedistill.models.pretrained import save_pretrained
from wavedistill.models.wavenet import WaveNet, WaveNetConfig

WIDE = 1280
NARROW = 400
HEIGHT = 900
TABS = {
    "Synthesise": "Synthesise",
    "Sample": "Sample",
    "Stream": "Stream",
    "Text": "Speak",
    "Notes": "Scale",
    "Likelihood": "Score",
    "Flows": "Train",
}
"""Tabs and their buttons."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    """A tiny model of every kind, so that every tab is there."""
    folder = tmp_path_factory.mktemp("checkpoints")
    small = {"stack": STACK, "cond_channels": 8}
    students = {"student": {}, "other": {}, "notes": {"speakers": ["piano", "flute"]}}
    models = {
        name: shaken(ParallelWaveNet, ParallelWaveNetConfig(num_flows=1, **small, **more), 0)
        for name, more in students.items()
    }
    models["teacher"] = shaken(WaveNet, WaveNetConfig(linear_order=0, **small), 0)
    models["other_teacher"] = shaken(WaveNet, WaveNetConfig(linear_order=0, **small), 1)
    models["free"] = shaken(WaveNet, WaveNetConfig(mel=None, linear_order=0, **small), 0)
    return {name: str(save_pretrained(model, folder / name)) for name, model in models.items()}


@pytest.fixture(scope="module")
def served(app, checkpoints, monkeypatch_module):
    monkeypatch_module.setattr(app.shutil, "which", lambda name: "/usr/bin/" + name)  # the tab is there in any case
    monkeypatch_module.setattr(app, "tts_is_installed", lambda: True)
    served = app.launch(free_port(), list(checkpoints.values()), block=False, quiet=True)
    yield served
    served.close()


@pytest.fixture(scope="module")
def wide(browser, served):
    with opened(browser, served.address, WIDE) as page:
        page.get_by_role("tab", name="Synthesise").wait_for()
        yield page


@pytest.fixture(scope="module")
def narrow(browser, served):
    with opened(browser, served.address, NARROW) as page:
        page.get_by_role("tab", name="Synthesise").wait_for()
        yield page


def open_tab(page, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()
    page.get_by_role("button", name=TABS[tab], exact=True).locator("visible=true").wait_for()


def box(locator) -> dict[str, float]:
    """Edges in pixels."""
    found = locator.bounding_box()
    return {
        "left": found["x"],
        "right": found["x"] + found["width"],
        "top": found["y"],
        "bottom": found["y"] + found["height"],
    }


@pytest.mark.parametrize("tab", TABS)
def test_the_button_is_above_the_fold_and_no_result_is_an_empty_box(wide, tab):
    open_tab(wide, tab)
    button = wide.get_by_role("button", name=TABS[tab], exact=True).locator("visible=true")
    assert wide.evaluate("window.scrollY") == 0
    assert box(button)["bottom"] <= HEIGHT
    assert wide.get_by_text("Press ").locator("visible=true").count() == 1, "a line says what to press"
    assert wide.get_by_label("Empty value").locator("visible=true").count() == 0


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_is_seen_on_a_narrow_screen(narrow, tab):
    open_tab(narrow, tab)
    labels = narrow.get_by_role("tab").locator("visible=true")
    assert labels.all_inner_texts() == list(TABS), "no tab hides in a menu"
    assert all(0 <= box(label)["left"] and box(label)["right"] <= NARROW for label in labels.all())
    assert narrow.evaluate("document.documentElement.scrollWidth") <= NARROW


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_keys_look_like_a_piano(request, width):
    page = request.getfixturevalue("wide" if width == WIDE else "narrow")
    open_tab(page, "Notes")
    octaves = page.locator(".octave").all()
    assert len(octaves) == 2
    for octave in octaves:
        whites = [box(key) for key in octave.locator("button.white").all()]
        assert len(whites) == 7
        assert all(left["right"] == pytest.approx(right["left"], abs=1) for left, right in itertools.pairwise(whites))
        assert len({(key["top"], key["bottom"]) for key in whites}) == 1
        blacks = octave.locator("button.black").all()
        assert [key.inner_text()[:2] for key in blacks] == ["C#", "D#", "F#", "G#", "A#"]
        for key, left in zip(blacks, (0, 1, 3, 4, 5), strict=True):
            edges = box(key)
            middle = (edges["left"] + edges["right"]) / 2
            assert middle == pytest.approx(whites[left]["right"], abs=2), "between two white keys"
            assert edges["right"] - edges["left"] < 0.8 * (whites[0]["right"] - whites[0]["left"])
            assert edges["top"] == pytest.approx(whites[0]["top"], abs=1)
            assert edges["bottom"] < whites[0]["bottom"] - 30
            key.scroll_into_view_if_needed()
            edges = box(key)
            at = [edges["left"] + 2, edges["bottom"] - 5]
            hit = page.evaluate("([x, y]) => document.elementFromPoint(x, y).closest('button').innerText", at)
            assert hit == key.inner_text(), "it lies over them"
    first, second = (box(octave) for octave in octaves)
    if width == WIDE:
        assert first["right"] == pytest.approx(second["left"], abs=1) and first["top"] == second["top"]
    else:
        assert first["bottom"] < second["top"] and first["left"] == second["left"]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_timer_stands_below_the_words(request, served, width):
    page = request.getfixturevalue("wide" if width == WIDE else "narrow")
    open_tab(page, "Sample")
    page.get_by_label("number input for Length (s)").locator("visible=true").fill("0.1")
    with served.models.busy:
        click(page, "Sample")
        words = page.get_by_text("The model computes").locator("visible=true")
        words.wait_for()
        timer = page.locator(".status .progress-text").locator("visible=true")
        timer.wait_for()
        assert page.locator(".progress-text").locator("visible=true").count() == 1, "one timer, not one a result"
        assert box(timer)["top"] >= box(words)["bottom"]
        assert words.evaluate("e => getComputedStyle(e.closest('.pending') ?? e).opacity") == "1"
    page.get_by_text("of audio in").locator("visible=true").wait_for()
    page.locator("#sample-mel img").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_results_fit_a_narrow_screen(narrow):
    for tab, control, value in (("Synthesise", "Teacher excerpt (s)", "0.1"), ("Flows", "Training time (s)", "2")):
        open_tab(narrow, tab)
        open_options(narrow)
        narrow.get_by_label(f"number input for {control}").fill(value)
        click(narrow, TABS[tab])
    open_tab(narrow, "Notes")
    click(narrow, "Scale")
    open_tab(narrow, "Likelihood")
    click(narrow, "Score")
    for tab, result in (
        ("Notes", "#notes-mel img"),
        ("Likelihood", "#score-picture img"),
        ("Likelihood", ".numbers table"),
        ("Synthesise", "#mels img"),
        ("Flows", "#flow-animation img"),
    ):
        open_tab(narrow, tab)
        narrow.locator(result).wait_for()
        assert narrow.evaluate("document.documentElement.scrollWidth") <= NARROW
        assert narrow.get_by_label("Empty value").locator("visible=true").count() == 0
        assert box(narrow.locator(result))["right"] <= NARROW


def test_after_an_error_the_hint_is_back(wide):
    open_tab(wide, "Notes")
    hint = wide.locator("#notes-caption").inner_text()
    open_tab(wide, "Synthesise")
    before = wide.locator("#comparison").inner_text()
    wide.get_by_label("Clear").locator("visible=true").first.click()
    click(wide, "Synthesise")
    wide.get_by_text("there is no recording yet").wait_for()
    wide.locator("#comparison").get_by_text("Press Synthesise").wait_for()
    assert wide.locator("#comparison").inner_text() == before != hint
    assert wide.get_by_label("Empty value").locator("visible=true").count() == 0


def test_tabs_are_there_only_with_a_model_for_them(app, served, checkpoints):
    assert tabs_of(served.demo) == list(TABS)
    assert tabs_of(app.build_demo([checkpoints["student"], checkpoints["notes"]])) == [
        "Synthesise",
        "Stream",
        "Text",
        "Notes",
        "Flows",
    ]
    assert tabs_of(app.build_demo([checkpoints["free"]])) == ["Synthesise", "Sample", "Flows"]
    assert "Sample" not in tabs_of(app.build_demo()), "no bundled model is unconditional"


def test_models_are_warmed_up_before_they_are_timed(app, checkpoints, monkeypatch):
    calls = []
    vocoder = app.models.Vocoder

    class Watched(vocoder):
        def __call__(self, mel, **options):
            calls.append(mel.shape[-1])
            return super().__call__(mel, **options)

    monkeypatch.setattr(app.models, "Vocoder", Watched)
    models = app.models.Models([checkpoints["teacher"], checkpoints["student"]])
    for name in models.students + models.teachers:
        calls.clear()
        models.vocoder(name)
        models.vocoder(name)
        assert len(calls) == 1
