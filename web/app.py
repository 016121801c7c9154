"""The demo page: its tabs and its server.

    from wavedistill.assets import load_web_app
    load_web_app().launch(port=7860)                    # or: wavedistill demo --port 7860

The page answers on 127.0.0.1 only and asks nothing of any other host.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read by gradio: no telemetry, no look-up of newer versions

import gradio as gr  # noqa: E402
import torch  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

from wavedistill.audio.tts import tts_is_installed  # noqa: E402
from wavedistill.errors import WavedistillError  # noqa: E402

from . import actions, guard, likelihood, models, notes, playground, speak, tabs  # noqa: E402

HOST = "127.0.0.1"
MAX_FILE_SIZE = "20mb"
MAX_WAITING = 16
MAX_SESSIONS = 256
"""Visitors whose page is remembered; Gradio keeps 10,000 by default, a copy of the page's settings for each."""
MAX_THREADS = 8
"""That run the page's functions, of which one computes at a time; each has a heap of its own."""
INTRO = """# wavedistill
Speech from mel spectrograms: the **student** computes all samples at once, the **teacher** one by one."""


def build_demo(checkpoints: Sequence[str | Path] | None = None) -> gr.Blocks:
    """The page over ``checkpoints`` (bundled names, checkpoint or run folders; None: all bundled ones).

    Raises:
        WavedistillError: for a checkpoint that cannot be found or read.
    """
    return _page(models.Models(checkpoints))


@dataclass(frozen=True)
class Served:
    """A page that is being served; ``address`` is where."""

    demo: gr.Blocks
    address: str
    models: models.Models

    def close(self) -> None:
        """Stop serving, once the computation that runs is done and delivered."""
        self.models.wait()
        self.demo.close(verbose=False)
        self.models.wait()  # one that began in between


def launch(
    port: int = 7860,
    checkpoints: Sequence[str | Path] | None = None,
    *,
    root_path: str = "",
    block: bool = True,
    quiet: bool = False,
) -> Served:
    """Serve the page on 127.0.0.1:``port``; ``block`` does so until Ctrl-C, ``quiet`` prints no address.

    ``root_path`` is where a reverse proxy shows the page: ``/voice``, or a whole address. The proxy takes it off again.

    Raises:
        WavedistillError: the port is taken, or a checkpoint cannot be found or read.
    """
    _check_port(port)
    _leave_a_core()
    offered = models.Models(checkpoints)
    demo = _page(offered).queue(
        max_size=MAX_WAITING,
        default_concurrency_limit=1,
        status_update_rate=1,
        api_open=False,  # no way around the queue
    )
    _, address, _ = demo.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        ssr_mode=False,
        max_file_size=MAX_FILE_SIZE,
        state_session_capacity=MAX_SESSIONS,
        max_threads=MAX_THREADS,
        show_error=True,  # in words whatever fails
        root_path=root_path,
        app_kwargs={"middleware": [Middleware(guard.OwnFilesOnly)]},
        run_history=False,  # it would offer to keep sounds at the Hugging Face hub
        prevent_thread_lock=True,
        quiet=True,  # it would advertise public links
        theme=_theme(),
        css_paths=[Path(__file__).with_name("style.css")],
        footer_links=["api"],
    )
    served = Served(demo, address, offered)
    if not quiet:
        print(f"The demo is at {address} (Ctrl-C ends it)", flush=True)
    if block:
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("\nending after the running computation (Ctrl-C again: at once)", flush=True)
        finally:
            served.close()
    return served


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just ended does not count
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = f"port {port} on {HOST} cannot be used ({error})"
            raise WavedistillError(f"{reason}: give another one, --port P") from error


def _leave_a_core() -> None:
    """Leave one core to the server and the browser.

    With threads on all cores they wait for one another whenever the page is drawn: on two cores the student then ran at
    1 x real time, with one thread at 6 to 9 x (measured, with an earlier student).
    """
    cores = os.cpu_count() or 1
    torch.set_num_threads(min(torch.get_num_threads(), max(1, cores - 1)))


def _theme() -> gr.themes.Base:
    """Quiet colours and fonts of the system: nothing is loaded from elsewhere."""
    return gr.themes.Soft(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["monospace"],
    ).set(
        background_fill_primary="*neutral_50",  # set() would put it back to white
        block_title_background_fill="none",
        block_title_background_fill_dark="none",
        block_title_padding="0",
        block_title_text_color="*neutral_600",
        block_label_background_fill="none",
        block_label_background_fill_dark="none",
        block_label_border_width="0",
        block_label_shadow="none",
        block_label_text_color="*neutral_600",
    )


def _page(offered: models.Models) -> gr.Blocks:
    """The tabs for which there are models; the first one always, which says what is missing."""
    speech = actions.Actions(offered)
    with gr.Blocks(title="wavedistill", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.Markdown(INTRO, elem_classes="intro")
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("Synthesise"):
                tabs.synthesize_tab(speech)
            if offered.unconditional:
                with gr.Tab("Sample"):
                    tabs.sample_tab(speech)
            if offered.students and shutil.which("ffmpeg"):  # Gradio encodes streamed audio with it
                with gr.Tab("Stream"):
                    tabs.stream_tab(speech)
            if offered.students and tts_is_installed():
                with gr.Tab("Text"):
                    speak.speak_tab(speak.Reader(offered))
            if offered.notes:
                with gr.Tab("Notes"):
                    notes.notes_tab(notes.Notes(offered))
            if offered.teachers or offered.flows:
                with gr.Tab("Likelihood"):
                    likelihood.likelihood_tab(likelihood.Likelihood(offered))
            with gr.Tab("Flows"):
                playground.playground_tab(playground.Playground(offered.busy))
    return demo
