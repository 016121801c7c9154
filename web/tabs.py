"""Layout of the tabs "Synthesise", "Sample" and "Stream"."""

from __future__ import annotations

import gradio as gr

from .actions import Actions
from .widgets import (
    PRIVATE,
    Results,
    choice,
    noise_controls,
    picture_output,
    player,
    recording_input,
    sound_output,
)

NO_STUDENT = "**No student is given.** Distil one (`wavedistill distill`), then `wavedistill demo --checkpoint RUN`."


def synthesize_tab(actions: Actions) -> None:
    """Original, student and an excerpt of the teacher beside each other."""
    models = actions.models
    if not models.students:
        gr.Markdown(NO_STUDENT)
        return
    with_teacher = bool(models.teachers)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            recording = recording_input()
            student = choice(models.students, "Student")
            teacher = choice(models.teachers, "Teacher")
            button = gr.Button("Synthesise", variant="primary")
            with gr.Accordion("Options", open=False):
                noise = noise_controls(models.speakers)
                seconds = gr.Slider(0.0, 2.0, 0.5, step=0.1, label="Teacher excerpt (s)", visible=with_teacher)
        with gr.Column(scale=3):
            heard = "original, student and a short excerpt by the teacher" if with_teacher else "original and student"
            results = Results(
                f"Press **Synthesise** to hear {heard} beside each other: the student speaks from the mel "
                "spectrogram of the recording.",
                label="Comparison",
                elem_id="comparison",
            )
            with results.shown:
                with gr.Row():
                    original = player("Original", "Original length")
                    spoken = player("Student", "Student speed")
                    sampled = player("Teacher excerpt", "Teacher speed", visible=False)
                mels = picture_output("Mel spectrograms", "mels")
    state = gr.State()
    spoken_by_student = results.run(
        button.click,
        actions.synthesize,
        [recording, student, *noise],
        [original.sound, original.caption, spoken.sound, spoken.caption, mels, state],
        working="The student computes the whole waveform at once …",
        api_name="synthesize",
    )

    def before_teacher(teacher: str | None, seconds: float) -> tuple[str, dict]:
        status = f"The teacher samples {seconds:g} s, one sample after another …" if teacher and seconds else ""
        return status, gr.Column(visible=False)

    def after_teacher(teacher: str | None, seconds: float) -> dict:
        return gr.Column(visible=bool(teacher and seconds))

    asked = [teacher, seconds]
    begun = spoken_by_student.success(before_teacher, asked, [results.status, sampled.column], **PRIVATE)
    done = results.then(
        begun.success,
        actions.teach,
        [state, *asked, *noise],
        [sampled.sound, sampled.caption, mels, results.status],
        api_name="teacher",
    )
    done.success(after_teacher, asked, sampled.column, **PRIVATE)


def sample_tab(actions: Actions) -> None:
    """A waveform from noise alone; for pages that have an unconditional model."""
    models = actions.models
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            checkpoint = gr.Dropdown(models.unconditional, value=models.unconditional[0], label="Unconditional model")
            seconds = gr.Slider(0.1, 4.0, 0.5, step=0.1, label="Length (s)")
            button = gr.Button("Sample", variant="primary")
            with gr.Accordion("Options", open=False):
                noise = noise_controls(models.speakers)
        with gr.Column(scale=3):
            results = Results("Press **Sample**: the model makes a sound from noise alone.", label="Speed")
            with results.shown:
                sound = sound_output("Sample")
                mel = picture_output("Mel spectrogram", "sample-mel")
    results.run(
        button.click,
        actions.sample,
        [checkpoint, seconds, *noise],
        [sound, results.status, mel],
        working="The model computes …",
        api_name="sample",
    )


def stream_tab(actions: Actions) -> None:
    """The student chunk by chunk; for pages that have a student, where ffmpeg is installed."""
    models = actions.models
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            recording = recording_input()
            student = choice(models.students, "Student")
            button = gr.Button("Stream", variant="primary")
            with gr.Accordion("Options", open=False):
                noise = noise_controls(models.speakers)
                chunk = gr.Slider(0.2, 2.0, 0.5, step=0.1, label="Chunk (s)")
        with gr.Column(scale=3):
            results = Results(
                "Press **Stream**: the student computes the recording chunk by chunk, in constant memory, and playing "
                "starts with the first chunk.",
                label="Progress",
            )
            with results.shown:
                live = sound_output("Live", streaming=True, autoplay=True)
    results.run(
        button.click,
        actions.stream,
        [recording, student, chunk, *noise],
        [live, results.status],
        working="The student computes the first chunk …",
        meanwhile=True,
        api_name="stream",
    )
