"""What every test starts from."""

import os
import signal

# Processes side by side share the cores; what a test starts inherits this. Before torch is imported.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

from helpers.web_browser import app, browser, monkeypatch_module, outside, served, student  # noqa: E402, F401, fixtures

# A shell without job control starts background commands with SIGINT ignored, and children inherit that: the tests of
# Ctrl-C must not depend on how pytest itself was started.
signal.signal(signal.SIGINT, signal.default_int_handler)
