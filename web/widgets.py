"""Components that several tabs share: recordings, controls of the noise, players, and the part that shows results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gradio as gr
from gradio.events import Dependency

from .sounds import MAX_SECONDS

EXAMPLES_FOLDER = Path(__file__).resolve().parent / "examples"
EXAMPLES = {"English": "english.flac", "Italian": "italian.flac", "Russian": "russian.flac"}

PRIVATE = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
"""Options of a step that only changes what is visible."""


class Noise(NamedTuple):
    """The controls of what is drawn at random."""

    seed: gr.Number
    temperature: gr.Slider
    speaker: gr.Dropdown


class Player(NamedTuple):
    """A player with its caption below."""

    sound: gr.Audio
    caption: gr.Markdown
    column: gr.Column


class Results:
    """The part of a tab that shows what was computed: a line of status, and below it what is laid out in ``shown``.

    Before the first computation only ``hint`` is there, which says what to press.

    Args:
        hint: Markdown.
        label: what the status tells in the end; the name of this output in the API.
        elem_id: of the status.
    """

    def __init__(self, hint: str, label: str, elem_id: str | None = None) -> None:
        self.hint = hint
        self.status = gr.Markdown(hint, label=label, elem_classes="status", elem_id=elem_id)
        self.shown = gr.Column(visible=False)

    def run(
        self,
        trigger: Callable[..., Dependency],
        function: Callable,
        inputs: list,
        outputs: list,
        *,
        working: str,
        meanwhile: bool | None = None,
        **options: object,
    ) -> Dependency:
        """Say ``working``, run the function, show the results; after an error the hint comes back.

        Args:
            trigger: what starts it, as a button's ``click``.
            function, inputs, outputs: as for Gradio's events.
            working: the status meanwhile.
            meanwhile: whether the results are visible until the function ends; None: as they were.
            options: more options of the function's event, as ``api_name``.

        Returns:
            the last step, which ran only if all went well.
        """
        shown = gr.skip() if meanwhile is None else gr.Column(visible=meanwhile)
        begun = trigger(lambda: (working, shown), None, [self.status, self.shown], **PRIVATE)
        return self.then(begun.then, function, inputs, outputs, **options)

    def then(
        self, trigger: Callable[..., Dependency], function: Callable, inputs: list, outputs: list, **options: object
    ) -> Dependency:
        """As `run`, with whatever status there is."""
        # one computation at a time over all tabs: two at once would slow each other and spoil the timings
        options = {"concurrency_id": "compute", "concurrency_limit": 1, "show_progress": "minimal", **options}
        done = trigger(function, inputs, outputs, show_progress_on=self.status, **options)
        done.failure(lambda: self.hint, None, self.status, **PRIVATE)
        return done.success(lambda: gr.Column(visible=True), None, self.shown, **PRIVATE)


def recording_input() -> gr.Audio:
    """Upload or microphone; the first example stands in it from the start."""
    found = {label: str(EXAMPLES_FOLDER / name) for label, name in EXAMPLES.items()}
    recording = sound_input(f"Recording (up to {MAX_SECONDS:g} s)", next(iter(found.values())))
    gr.Examples([[path] for path in found.values()], recording, example_labels=list(found), label="Held-out examples")
    return recording


def sound_input(label: str, path: str) -> gr.Audio:
    """Upload or microphone; the file at ``path`` stands in it from the start."""
    return gr.Audio(value=path, sources=["upload", "microphone"], type="filepath", label=label, buttons=[])


def noise_controls(speakers: list[str]) -> Noise:
    """Seed, temperature and, where a model knows speakers, the speaker."""
    return Noise(
        gr.Number(0, label="Seed", precision=0, minimum=0),
        gr.Slider(0.0, 1.5, 1.0, step=0.05, label="Temperature"),
        choice(speakers, "Speaker"),
    )


def choice(names: list[str], label: str) -> gr.Dropdown:
    """One of ``names``, at first the first; invisible while there is nothing to choose."""
    return gr.Dropdown(names, value=names[0] if names else None, label=label, visible=len(names) > 1)


def player(label: str, caption_label: str, *, visible: bool = True) -> Player:
    """A player, and below it a caption; the labels name both in the API."""
    with gr.Column(min_width=220, visible=visible) as column:
        sound = sound_output(label)
        return Player(sound, gr.Markdown(label=caption_label, elem_classes="caption"), column)


def sound_output(label: str, **options: bool) -> gr.Audio:
    """A player whose sound can be saved."""
    return gr.Audio(label=label, interactive=False, buttons=["download"], **options)


def picture_output(label: str, elem_id: str) -> gr.Plot:
    """A figure without a visible label, which would cover it."""
    return gr.Plot(label=label, show_label=False, elem_id=elem_id)
