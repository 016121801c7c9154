"""The demo's tab "Likelihood": its functions, and the tab itself in a real headless Chromium."""

from __future__ import annotations

import re

import numpy as np
import pytest
from helpers.tiny_models import speech_like, tiny_flow, tiny_student, tiny_teacher
from helpers.web_browser import click, free_port, opened, tabs_of

from wavedistill.audio.io import save_audio, to_int16
from wavedistill.evaluation.systems import on_grid
from wavedistill.models.pretrained import save_pretrained


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("checkpoints")
    models = {
        "teacher": tiny_teacher(),
        "voices": tiny_teacher(speakers=["a", "b"]),
        "logistic": tiny_teacher(distribution="mol", num_mixtures=3),
        "flow": tiny_flow(),
        "student": tiny_student(),
    }
    return {name: str(save_pretrained(model, folder / name)) for name, model in models.items()}


@pytest.fixture(scope="module")
def served(app, checkpoints, outside):
    served = app.launch(free_port(), list(checkpoints.values()), block=False, quiet=True)
    yield served
    served.close()


@pytest.fixture
def room(app, served):
    return app.likelihood.Likelihood(served.models)


@pytest.fixture
def sounds(tmp_path) -> list[str]:
    return [str(save_audio(tmp_path / f"{n}.wav", speech_like(1.5, seed=n), 8000)) for n in range(2)]


def test_the_tab_needs_a_model_that_has_a_density(app, checkpoints):
    assert "Likelihood" not in tabs_of(app.build_demo([checkpoints["student"]]))
    endpoints = {}
    for name in ("flow", "teacher"):
        demo = app.build_demo([checkpoints[name]])
        assert "Likelihood" in tabs_of(demo)
        endpoints[name] = set(demo.get_api_info()["named_endpoints"])
    assert endpoints["teacher"] >= {"/score", "/morph", "/morph_step"}
    assert "/morph" in endpoints["flow"] and "/score" not in endpoints["flow"]


def test_a_score_is_told_in_words(room, checkpoints, sounds):
    scored = room.score(sounds[0], checkpoints["teacher"], None)
    assert re.match(r"\*\*\d+\.\d\d bits a sample\*\*", scored.likelihood)
    assert "the likeliest of all is silence" in scored.likelihood
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in scored.numbers.splitlines()]
    assert all(len(row) == 3 for row in rows)
    numbers = {row[0]: row[1] for row in rows}
    assert f"{float(numbers['bits']):.2f} bits" in scored.likelihood and float(numbers["typicality"]) >= 0
    assert len(scored.picture.axes) == 3
    of_a, of_b, unknown = (room.score(sounds[0], checkpoints["voices"], name).numbers for name in ("a", "b", "z"))
    assert of_a != of_b and unknown == of_a


@pytest.mark.parametrize(("model", "seconds"), [("flow", 1.0), ("teacher", 0.5), ("voices", 0.5)])
def test_the_ends_of_a_morph_are_the_beginnings_of_the_sounds(room, checkpoints, sounds, model, seconds):
    made = room.morph(*sounds, checkpoints[model], 4, "a", "b")
    assert len(made.steps) == 4 and made.done.startswith("**4 steps in ")
    samples = int(seconds * 8000) // 64 * 64
    for (rate, step), number in ((made.steps[0], 0), (made.steps[-1], 1)):
        given = to_int16(on_grid(speech_like(1.5, seed=number)[:samples]))
        assert rate == 8000 and step.shape == given.shape
        assert np.abs(step.astype(int) - given).max() <= 1
    assert len(made.joined[1]) > sum(len(step) for _, step in made.steps)


def test_what_is_wrong_is_said_in_words(app, room, checkpoints, sounds):
    import gradio

    with pytest.raises(gradio.Error, match="there is no recording yet"):
        room.score(None, checkpoints["teacher"], None)
    with pytest.raises(gradio.Error, match="gaussian"):
        room.score(sounds[0], checkpoints["logistic"], None)
    with pytest.raises(gradio.Error, match="there is no recording yet"):
        room.morph(sounds[0], None, checkpoints["flow"], 3, None, None)
    with pytest.raises(gradio.Error, match="gives? a teacher"):
        room.morph(*sounds, checkpoints["student"], 3, None, None)
    with pytest.raises(gradio.Error, match="morph two sounds first"):
        app.likelihood.step_of(None, 1)
    with pytest.raises(gradio.Error, match="steps 1 to 1, given 2"):
        app.likelihood.step_of([(8000, np.zeros(8, np.int16))], 2)


COMPILING = 150_000
"""Milliseconds: in a fresh checkout the first score and the first morph compile their loops."""


def ask(page, button: str, answer) -> None:
    """Press a button until it is answered: an example is in its player a moment after it was chosen, and not before."""
    refused = page.get_by_text("there is no recording yet")
    for _ in range(100):
        click(page, button)
        answer.or_(refused).first.wait_for(timeout=COMPILING)
        if answer.is_visible():
            return
        page.locator(".toast-close").first.click()
        refused.wait_for(state="detached")
    pytest.fail(f"{button}: the example never came")


def test_page_scores_and_morphs(browser, served, outside):
    with opened(browser, served.address) as page:
        page.get_by_role("tab", name="Likelihood", exact=True).click()
        click(page, "Italian")
        ask(page, "Score", page.locator("#score").get_by_text("bits a sample"))
        page.locator(".numbers table").wait_for()
        page.locator("#score-picture img").wait_for()
        click(page, "English to Italian")
        page.get_by_label("number input for Steps").fill("3")
        ask(page, "Morph", page.locator("#morph").get_by_text("3 steps in"))
        page.locator("#morph-mels img").wait_for()
        source = "[...document.querySelectorAll('a[download]')].map(a => a.href).join()"
        before = page.evaluate(source)
        assert before
        page.locator("#morph-step input[type=number]").fill("3")
        page.locator("#morph-step input[type=number]").press("Enter")
        page.wait_for_function(f"{source} !== {before!r}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert page.get_by_label("Empty value").locator("visible=true").count() == 0
    assert outside == []
