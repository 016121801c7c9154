"""What the tests of the demo page share: the page's module, a headless Chromium, a watch on the network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.tiny_models import tiny_student
from wavedistill.assets import load_web_app
from wavedistill.models.pretrained import save_pretrained

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


@pytest.fixture(scope="module")
def app():
    """``web/app.py``, loaded as the command line does."""
    return load_web_app()


@pytest.fixture(scope="module")
def outside(monkeypatch_module) -> list:
    """Every address that this process, and so the server, tries to reach beyond the loopback."""
    tried = []
    connect = socket.socket.connect
    getaddrinfo = socket.getaddrinfo

    def watched_connect(self, address):
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "::1", "localhost")):
            tried.append(address)
        return connect(self, address)

    def watched_getaddrinfo(host, *args, **kwargs):
        if host not in (None, "localhost", "::1") and not str(host).startswith("127."):
            tried.append(host)
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch_module.setattr(socket.socket, "connect", watched_connect, raising=False)
    monkeypatch_module.setattr(socket, "getaddrinfo", watched_getaddrinfo)
    return tried


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> str:
    """The checkpoint of a tiny student of speech."""
    return str(save_pretrained(tiny_student(), tmp_path_factory.mktemp("checkpoints") / "student"))


@pytest.fixture(scope="module")
def served(app, student, outside):
    """The page over that student alone; a file of tests whose page has more has a fixture of this name."""
    served = app.launch(free_port(), [student], block=False, quiet=True)
    yield served
    served.close()


def tabs_of(demo) -> list[str]:
    return [block.label for block in demo.blocks.values() if type(block).__name__ == "Tab"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def opened(browser, address: str, width: int = 1280) -> Iterator:
    """The page, freshly opened; nothing it does may leave the machine or raise."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(60_000)
    requests = []
    failures = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert len(requests) > 10
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert failures == []


def click(page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def open_options(page) -> None:
    """Open the part of a tab that holds its further controls."""
    page.get_by_role("button", name="Options").locator("visible=true").click()
