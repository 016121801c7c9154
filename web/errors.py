"""How errors reach a visitor."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from wavedistill.errors import WavedistillError


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show a `WavedistillError` on the page; any other exception is a fault of ours and keeps its traceback."""
    try:
        yield
    except WavedistillError as error:
        # Gradio renders the message as HTML, and it may quote the name of an uploaded file
        message = html.escape(str(error)).replace("\n", "<br>")
        raise gr.Error(message, title="That did not work", print_exception=False) from None
