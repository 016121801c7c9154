"""Take web/screenshot.png (the bundled models, after "Synthesise") and web/playground.png (after "Train").

    python web/screenshot.py [--out DIR] [--playground] [CHECKPOINT ...]

``--tabs`` takes pictures of all tabs instead, 1280 and 400 pixels wide, before and after their button is pressed.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from wavedistill.assets import load_web_app

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
TIMEOUT_MS = 600_000
HEIGHT = 900
WIDTHS = (1280, 400)
DONE = {
    "Synthesise": "times as fast",
    "Sample": "s of audio in",
    "Stream": "3.14 s of 3.14 s",
    "Notes": "s of notes in",
    "Likelihood": "Few bits are no sign",
    "Flows": "above the entropy of",
}
"""Tabs, and a text that each shows when its results are there."""
BUTTONS = {"Notes": "Chord", "Likelihood": "Score", "Flows": "Train"}
"""What to press in a tab; elsewhere the button has the tab's name."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def opened(checkpoints: list[str] | None) -> Iterator[Page]:
    served = load_web_app().launch(free_port(), checkpoints, block=False, quiet=True)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": WIDTHS[0], "height": HEIGHT}, color_scheme="light")
            page.goto(served.address)
            page.get_by_role("tab", name="Synthesise").wait_for()
            yield page
            browser.close()
    finally:
        served.close()


def save(page: Page, path: Path, full_page: bool = True) -> None:
    page.wait_for_timeout(1500)  # the players draw their waveforms a moment after they have the file
    page.mouse.move(0, 0)
    page.screenshot(path=path, full_page=full_page)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def synthesise(page: Page) -> None:
    press(page, "Synthesise")
    page.get_by_text(DONE["Synthesise"]).wait_for(timeout=TIMEOUT_MS)


def train(page: Page) -> None:
    page.get_by_role("tab", name="Flows").click()
    page.get_by_role("button", name="Options").locator("visible=true").click()
    page.get_by_label("Target density", exact=True).locator("visible=true").click()
    page.get_by_role("option", name="rings", exact=True).click()
    page.get_by_label("Flow family", exact=True).locator("visible=true").click()
    page.get_by_role("option", name="neural spline flow", exact=True).click()
    page.get_by_text("neural spline flow:").wait_for()
    page.wait_for_timeout(1000)  # the family's own depth arrives
    page.get_by_label("number input for Depth (layers)").fill("4")
    page.get_by_label("number input for Training time (s)").fill("30")
    press(page, "Train")
    page.locator("#flow-animation img").wait_for(timeout=TIMEOUT_MS)


def every_tab(page: Page, out: Path) -> None:
    """Pictures of each tab at each width, before its button is pressed, 1 s after and when all is done."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.reload()
        page.get_by_role("tab", name="Synthesise").wait_for()
        for tab in page.get_by_role("tab").all_inner_texts():
            page.get_by_role("tab", name=tab, exact=True).click()
            save(page, out / f"{tab}-{width}-before.png", full_page=False)
            press(page, BUTTONS.get(tab, tab))
            page.wait_for_timeout(1000)
            page.screenshot(path=out / f"{tab}-{width}-working.png")
            page.get_by_text(DONE[tab]).locator("visible=true").first.wait_for(timeout=TIMEOUT_MS)
            if tab == "Flows":
                page.locator("#flow-animation img").wait_for(timeout=TIMEOUT_MS)
            save(page, out / f"{tab}-{width}-after.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", help="default: the bundled ones")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--playground", action="store_true", help="only playground.png")
    parser.add_argument("--tabs", action="store_true", help="pictures of all tabs, to look at")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with opened(arguments.checkpoints or None) as page:
        if arguments.tabs:
            every_tab(page, arguments.out)
        else:
            if not arguments.playground:
                synthesise(page)
                save(page, arguments.out / "screenshot.png")
            train(page)
            save(page, arguments.out / "playground.png")
    print(arguments.out)
