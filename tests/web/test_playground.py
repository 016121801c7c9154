"""The demo's tab "Flows": its endpoint, and the tab itself in a real headless Chromium."""

from __future__ import annotations

import re

import pytest
from helpers.web_browser import click, free_port, open_options, opened
from PIL import Image

SECONDS = "number input for Training time (s)"


@pytest.fixture(scope="module")
def served(app, outside):
    served = app.launch(free_port(), [], block=False, quiet=True)  # the tab needs no checkpoint
    yield served
    served.close()


@pytest.fixture
def playground(app, served):
    return app.playground.Playground(served.models.busy)


def test_training_reports_on_the_way_and_ends_with_both_pictures(app, playground):
    shown = []
    files = None
    for caption, layers, animation in playground.train("checkerboard", "spline", 1, 2, 0, app.playground.StopRequest()):
        shown.append(caption)
        if isinstance(layers, str):  # they last until the page asks for more
            files = Image.open(layers).size, Image.open(animation).n_frames
    assert len(shown) > 5 and all("nats" in caption for caption in shown)
    assert "entropy 2.079" in shown[0] and "100 %" in shown[-3]
    assert "above the entropy of 2.079" in shown[-1]
    assert files[0][0] > 300 and files[1] > 3


def test_a_listener_who_leaves_keeps_nothing_locked(app, playground, served):
    run = playground.train("rings", "planar", 2, 2, 0, app.playground.StopRequest())
    next(run)
    run.close()
    served.models.wait()


def test_what_is_wrong_is_said_in_words(app, playground):
    import gradio

    with pytest.raises(gradio.Error, match="choose from"):
        next(playground.train("squares", "planar", 2, 2, 0, app.playground.StopRequest()))
    with pytest.raises(gradio.Error, match="depth must be above 0"):
        next(playground.train("rings", "planar", 0, 2, 0, app.playground.StopRequest()))


@pytest.fixture
def page(served, browser):
    with opened(browser, served.address) as page:
        page.get_by_role("tab", name="Flows").click()
        open_options(page)
        yield page


def choose(page, label: str, option: str) -> None:
    page.get_by_role("listbox", name=label).or_(page.get_by_label(label, exact=True)).locator(
        "visible=true"
    ).first.click()
    page.get_by_role("option", name=option, exact=True).click()


def test_page_trains_a_flow_and_shows_its_layers(page, outside):
    choose(page, "Target density", "rings")
    choose(page, "Flow family", "NICE")
    page.get_by_text("NICE: additive couplings").wait_for()
    page.get_by_label("number input for Depth (layers)").fill("2")
    page.get_by_label(SECONDS).fill("2")
    click(page, "Train")
    caption = page.locator("#flow-caption")
    caption.get_by_text("held out after").wait_for()  # while it trains
    caption.get_by_text("above the entropy of 1.914").wait_for()
    for name, least in (("layers", 600), ("animation", 400)):
        picture = page.locator(f"#flow-{name} img")
        picture.wait_for()
        page.wait_for_function(f"document.querySelector('#flow-{name} img').naturalWidth >= {least}")
    assert page.locator("#flow-animation img").get_attribute("src").endswith(".gif")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert outside == []


def test_page_stops_a_training_and_draws_what_it_has(page):
    page.get_by_label(SECONDS).fill("30")
    click(page, "Train")
    caption = page.locator("#flow-caption")
    caption.get_by_text("held out after").wait_for()
    click(page, "Stop and draw")
    caption.get_by_text("above the entropy").wait_for()
    assert float(re.search(r"steps in ([\d.]+) s", caption.inner_text())[1]) < 25
    page.locator("#flow-layers img").wait_for()
