"""Take web/screenshot.png: open the demo with the bundled voices, click "Synthesise", wait for the teacher.

python web/screenshot.py [--out FILE] [CHECKPOINT ...]
"""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

from app import launch
from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
TEACHER_TIMEOUT_MS = 600_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def take(out: Path, checkpoints: list[str] | None) -> None:
    served = launch(free_port(), checkpoints, block=False, quiet=True)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
            page.goto(served.address)
            page.get_by_role("button", name="Synthesise", exact=True).click()
            page.get_by_text("times as fast").wait_for(timeout=TEACHER_TIMEOUT_MS)
            page.wait_for_timeout(1500)  # the players draw their waveforms a moment after they have the file
            page.mouse.move(0, 0)
            page.screenshot(path=out, full_page=True)
            browser.close()
    finally:
        served.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", help="default: the bundled ones")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("screenshot.png"))
    arguments = parser.parse_args()
    take(arguments.out, arguments.checkpoints or None)
    print(arguments.out)
