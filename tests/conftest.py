"""What every test starts from."""

import signal

from helpers.web_browser import app, browser, monkeypatch_module, outside  # noqa: F401, fixtures

# A shell without job control starts background commands with SIGINT ignored, and children inherit that: the tests of
# Ctrl-C must not depend on how pytest itself was started.
signal.signal(signal.SIGINT, signal.default_int_handler)
