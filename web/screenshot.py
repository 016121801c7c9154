"""Take web/screenshot.png (the demo with the bundled voices, after "Synthesise") and web/playground.png (after
"Train").

python web/screenshot.py [--out DIR] [--playground] [CHECKPOINT ...]
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app import launch
from playwright.sync_api import Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
TIMEOUT_MS = 600_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def opened(checkpoints: list[str] | None) -> Iterator[Page]:
    served = launch(free_port(), checkpoints, block=False, quiet=True)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
            page.goto(served.address)
            yield page
            browser.close()
    finally:
        served.close()


def save(page: Page, path: Path) -> None:
    page.wait_for_timeout(1500)  # the players draw their waveforms a moment after they have the file
    page.mouse.move(0, 0)
    page.screenshot(path=path, full_page=True)


def synthesise(page: Page) -> None:
    page.get_by_role("button", name="Synthesise", exact=True).click()
    page.get_by_text("times as fast").wait_for(timeout=TIMEOUT_MS)


def train(page: Page) -> None:
    page.get_by_role("tab", name="Flow playground").click()
    page.get_by_label("Target density", exact=True).locator("visible=true").click()
    page.get_by_role("option", name="rings", exact=True).click()
    page.get_by_label("Flow family", exact=True).locator("visible=true").click()
    page.get_by_role("option", name="neural spline flow", exact=True).click()
    page.get_by_text("neural spline flow:").wait_for()
    page.get_by_label("number input for Depth (layers)").fill("4")
    page.get_by_label("number input for Training time (s)").fill("30")
    page.get_by_role("button", name="Train", exact=True).click()
    page.locator("#flow-animation img").wait_for(timeout=TIMEOUT_MS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", help="default: the bundled ones")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--playground", action="store_true", help="only playground.png")
    arguments = parser.parse_args()
    with opened(arguments.checkpoints or None) as page:
        if not arguments.playground:
            synthesise(page)
            save(page, arguments.out / "screenshot.png")
        train(page)
        save(page, arguments.out / "playground.png")
    print(arguments.out)
