"""The demo page (Gradio 6): layout only. What its buttons do is in ``actions.py``; the notes are ``notes.py``, the flow
playground ``playground.py``.

    from app import build_demo, launch
    launch(port=7860)                                   # or: wavedistill demo --port 7860

The page answers on 127.0.0.1 only and asks nothing of any other host.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read by gradio: no telemetry, no look-up of newer versions

import gradio as gr  # noqa: E402

from wavedistill.errors import WavedistillError  # noqa: E402

HOST = "127.0.0.1"
MAX_FILE_SIZE = "20mb"
MAX_WAITING = 16
FOLDER = Path(__file__).resolve().parent
EXAMPLES = {"English": "english.flac", "Italian": "italian.flac", "Russian": "russian.flac"}


def _load(stem: str) -> ModuleType:
    """A file beside this one, by path: ``web`` is no package, in a checkout or a wheel."""
    name = f"wavedistill_web_{stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{stem}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


actions = _load("actions")
notes = _load("notes")
playground = _load("playground")

INTRO = """# wavedistill
Speech from mel spectrograms: the **student** computes all samples at once, the **teacher** one by one."""

NO_STUDENT = "**No student is given.** Distil one (`wavedistill distill`), then `wavedistill demo --checkpoint RUN`."
NO_UNCONDITIONAL = (
    "**No unconditional model is given.** Train one, for example "
    "`wavedistill train recipes/toy/unconditional.yaml`, then `wavedistill demo --checkpoint RUN`."
)
COMPUTE = {"concurrency_id": "compute", "concurrency_limit": 1}
"""One computation at a time over all tabs: two at once would slow each other and spoil the timings."""

CSS = """
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.intro h1 { margin-bottom: 0.1em; }
.caption { min-height: 4.6em; padding: 0.3em 0.4em 0; }
.caption p { line-height: 1.45; }
.keys { flex-wrap: nowrap !important; gap: 3px !important; }
.keys button {
  min-width: 0 !important; padding: 1.6em 0 0.4em !important; border: 1px solid #64748b; font-size: 0.85em;
}
.keys .white { background: #fff !important; color: #0f172a !important; }
.keys .black { background: #1e293b !important; color: #fff !important; }
.comparison { text-align: center; font-size: 1.1em; }
"""


def build_demo(checkpoints: Sequence[str | Path] | None = None) -> gr.Blocks:
    """The page over ``checkpoints`` (bundled names, checkpoint or run folders; None: all bundled ones).

    Raises:
        WavedistillError: for a checkpoint that cannot be found or read.
    """
    return _page(actions.Actions(checkpoints))


@dataclass(frozen=True)
class Served:
    """A page that is being served; ``address`` is where."""

    demo: gr.Blocks
    address: str
    actions: object

    def close(self) -> None:
        """Stop serving, once the computation that runs is done and delivered."""
        self.actions.wait()
        self.demo.close(verbose=False)
        self.actions.wait()  # one that began in between


def launch(
    port: int = 7860,
    checkpoints: Sequence[str | Path] | None = None,
    *,
    block: bool = True,
    quiet: bool = False,
) -> Served:
    """Serve the page on 127.0.0.1:``port``; ``block`` does so until Ctrl-C, ``quiet`` prints no address.

    Raises:
        WavedistillError: the port is taken, or a checkpoint cannot be found or read.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just ended does not count
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = f"port {port} on {HOST} cannot be used ({error})"
            raise WavedistillError(f"{reason}: give another one, --port P") from error
    act = actions.Actions(checkpoints)
    demo = _page(act).queue(max_size=MAX_WAITING, default_concurrency_limit=1, status_update_rate=1)
    _, address, _ = demo.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        ssr_mode=False,
        max_file_size=MAX_FILE_SIZE,
        prevent_thread_lock=True,
        quiet=True,  # it would advertise public links
        theme=gr.themes.Soft(
            primary_hue="teal",
            secondary_hue="teal",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],
            font_mono=["monospace"],
        ),
        css=CSS,
        footer_links=["api"],
    )
    served = Served(demo, address, act)
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


def _page(act: object) -> gr.Blocks:
    with gr.Blocks(title="wavedistill", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.Markdown(INTRO, elem_classes="intro")
        with gr.Tab("Synthesise"):
            _synthesize_tab(act)
        with gr.Tab("Sample"):
            _sample_tab(act)
        if shutil.which("ffmpeg"):  # Gradio encodes streamed audio with it
            with gr.Tab("Stream"):
                _stream_tab(act)
        if act.notes:
            with gr.Tab("Notes"):
                notes.notes_tab(notes.Notes(act.notes, act.voice, act.busy, actions.errors_shown), **COMPUTE)
        with gr.Tab("Flow playground"):
            playground.playground_tab(playground.Playground(act.busy, actions.errors_shown), **COMPUTE)
    return demo


def _recording() -> gr.Audio:
    """Upload or microphone; the first example stands in it from the start."""
    found = {label: str(FOLDER / "examples" / name) for label, name in EXAMPLES.items()}
    recording = gr.Audio(
        value=next(iter(found.values())),
        sources=["upload", "microphone"],
        type="filepath",
        label=f"Recording (up to {actions.MAX_SECONDS:g} s)",
        buttons=[],
    )
    clips = [[path] for path in found.values()]
    gr.Examples(clips, recording, example_labels=list(found), label="Held-out examples")
    return recording


def _noise(act: object, interactive: bool = True) -> tuple[gr.Number, gr.Slider, gr.Dropdown]:
    """Seed, temperature and, where a given model knows speakers, the speaker."""
    with gr.Group():
        return (
            gr.Number(0, label="Seed", precision=0, minimum=0, interactive=interactive),
            gr.Slider(0.0, 1.5, 1.0, step=0.05, label="Temperature", interactive=interactive),
            _choice(act.speakers, "Speaker"),
        )


def _choice(names: list[str], label: str) -> gr.Dropdown:
    """One of ``names``, at first the first; hidden while there is nothing to choose."""
    return gr.Dropdown(names, value=names[0] if names else None, label=label, visible=len(names) > 1)


def _heard(label: str, *, visible: bool = True, **player: bool) -> tuple[gr.Audio, gr.Markdown]:
    """A player with its caption below."""
    with gr.Column(min_width=220, visible=visible):
        return (
            gr.Audio(label=label, interactive=False, buttons=["download"], **player),
            gr.Markdown(elem_classes="caption"),
        )


def _synthesize_tab(act: object) -> None:
    if not act.students:
        gr.Markdown(NO_STUDENT)
        return
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            recording = _recording()
            student = _choice(act.students, "Student")
            teacher = _choice(act.teachers, "Teacher")
            noise = _noise(act)
            excerpt = gr.Slider(0.0, 2.0, 0.5, step=0.1, label="Teacher excerpt (s)", visible=bool(act.teachers))
            button = gr.Button("Synthesise", variant="primary")
        with gr.Column(scale=3):
            with gr.Row():
                original, original_caption = _heard("Original")
                spoken, spoken_caption = _heard("Student")
                sampled, sampled_caption = _heard("Teacher, excerpt", visible=bool(act.teachers))
            comparison = gr.Markdown(elem_classes="comparison")
            picture = gr.Plot(show_label=False, elem_id="mels")
    spoken_state = gr.State()
    button.click(
        act.synthesize,
        [recording, student, *noise],
        [original, original_caption, spoken, spoken_caption, picture, spoken_state],
        api_name="synthesize",
        **COMPUTE,
    ).success(
        act.teach,
        [spoken_state, teacher, excerpt, *noise],
        [sampled, sampled_caption, picture, comparison],
        api_name="teacher",
        show_progress_on=sampled,  # the student's sound and picture stay in use meanwhile
        **COMPUTE,
    )


def _sample_tab(act: object) -> None:
    usable = bool(act.unconditional)
    if not usable:
        gr.Markdown(NO_UNCONDITIONAL, elem_classes="caption")
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            checkpoint = gr.Dropdown(
                act.unconditional,
                value=act.unconditional[0] if usable else None,
                label="Unconditional model",
                interactive=usable,
            )
            seconds = gr.Slider(0.1, 4.0, 0.5, step=0.1, label="Length (s)", interactive=usable)
            noise = _noise(act, usable)
            button = gr.Button("Sample", variant="primary", interactive=usable)
        with gr.Column(scale=3):
            made, caption = _heard("Sample")
            picture = gr.Plot(show_label=False, elem_id="sample-mel")
    if usable:
        button.click(act.sample, [checkpoint, seconds, *noise], [made, caption, picture], api_name="sample", **COMPUTE)


def _stream_tab(act: object) -> None:
    if not act.students:
        gr.Markdown(NO_STUDENT)
        return
    gr.Markdown("The student speaks chunk by chunk in constant memory; playing starts with the first chunk.")
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            recording = _recording()
            student = _choice(act.students, "Student")
            noise = _noise(act)
            chunk = gr.Slider(0.2, 2.0, 0.5, step=0.1, label="Chunk (s)")
            button = gr.Button("Stream", variant="primary")
        with gr.Column(scale=3):
            live, caption = _heard("Live", streaming=True, autoplay=True)
    button.click(act.stream, [recording, student, chunk, *noise], [live, caption], api_name="stream", **COMPUTE)
