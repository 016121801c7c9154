"""The tab "Likelihood": how a teacher sees a sound, and the way from one sound to another through a model's noise."""

from __future__ import annotations

import time
from typing import NamedTuple

import gradio as gr
import torch
from matplotlib.figure import Figure
from torch import Tensor

from wavedistill.applications.morphing import PAUSE_SECONDS, MorphConfig, morph_sounds
from wavedistill.applications.score_picture import plot_score
from wavedistill.applications.scoring import stands_out
from wavedistill.applications.sound_statistics import SoundStatistics, sound_statistics
from wavedistill.assets import find_checkpoint_root
from wavedistill.audio.io import to_int16
from wavedistill.audio.plot import plot_mels
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import Clip, LoadedModel, on_grid
from wavedistill.inference.vocoder import Vocoder
from wavedistill.text import markdown_table

from .errors import errors_shown
from .models import Models
from .sounds import Sound, number, read_recording
from .widgets import (
    EXAMPLES_FOLDER,
    PRIVATE,
    Results,
    choice,
    picture_output,
    recording_input,
    sound_input,
    sound_output,
)

FLOW_SECONDS = 1.0
TEACHER_SECONDS = 0.5
"""Of each sound, from its start, that are morphed: more would take longer than a visitor likes to wait."""
FEWEST_STEPS, STEPS, MOST_STEPS = 3, 5, 7
NOTES_FOLDER = "notes-student/samples"
PAIRS = {
    "Piano to flute": ("piano-C4-original.wav", "flute-C4-original.wav"),
    "English to Italian": ("english.flac", "italian.flac"),
}
"""Files of two sounds; those of notes lie in `NOTES_FOLDER` of the bundled checkpoints."""
SCORE_INTRO = """**Score.** A teacher states how probable each sample is, given those before it, and so turns a sound
into noise: pure noise if the sound is one of its own, and something else where it is not."""
MORPH_INTRO = f"""**Morph.** A one-stage flow and a teacher turn a sound into noise and back without loss. Half way from
one noise to another lies a sound half way between two: the first and the last step are the two sounds. So that it takes
seconds, the first {FLOW_SECONDS:g} s of each sound are taken, and {TEACHER_SECONDS:g} s with a teacher, which makes one
value after another. Speech wants the same words in both, notes the same pitch."""
NO_ANOMALY = "Few bits are no sign of a normal sound: the likeliest of all is silence."


class Scored(NamedTuple):
    """What is shown of a sound: the likelihood in a line, the numbers as a table, the picture over time."""

    likelihood: str
    numbers: str
    picture: Figure


class Morphed(NamedTuple):
    """The steps, all of them in a row, mels of both ends and the middle, and a line on what was done."""

    steps: list[Sound]
    joined: Sound
    mels: Figure
    done: str


class Likelihood:
    """The functions of the tab over the page's models."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def score(self, recording: str | None, teacher: str, speaker: str | None) -> Scored:
        """A recording under a teacher."""
        with self.models.busy, errors_shown():
            vocoder = self.models.vocoder(teacher)
            audio = _whole_frames(read_recording(recording, vocoder.sample_rate), vocoder)
            began = time.perf_counter()
            model = LoadedModel(teacher, "", vocoder.model)
            clip = Clip("", _known_speaker(speaker, vocoder), audio)
            mel = model.mel(clip)
            found = sound_statistics(vocoder.model, audio, mel, model.speaker(clip))
            took = time.perf_counter() - began
            hop_seconds = vocoder.hop_length / vocoder.sample_rate
            spans = [(span.start, span.end) for span in stands_out(found.energy, hop_seconds)]
            return Scored(
                f"**{found.bits:.2f} bits a sample**, computed in {number(took)} s. {NO_ANOMALY}",
                numbers_in_words(found, spans),
                plot_score(
                    "what the teacher was given, and how well it knew what came", mel[0], found, spans, hop_seconds
                ),
            )

    def morph(
        self,
        first: str | None,
        second: str | None,
        model: str,
        steps: float,
        first_speaker: str | None,
        second_speaker: str | None,
    ) -> Morphed:
        """The steps from the beginning of one recording to that of another."""
        with self.models.busy, errors_shown():
            vocoder = self.models.vocoder(model)
            seconds = FLOW_SECONDS if self.models.one_pass(model) else TEACHER_SECONDS
            longest = int(seconds * vocoder.sample_rate)
            sounds = [
                _whole_frames(read_recording(path, vocoder.sample_rate)[:longest], vocoder) for path in (first, second)
            ]
            speakers = tuple(_known_speaker(name, vocoder) for name in (first_speaker, second_speaker))
            config = MorphConfig(int(steps), speakers if vocoder.model.config.speakers else None)
            began = time.perf_counter()
            made = morph_sounds(*sounds, LoadedModel(model, "", vocoder.model), config)
            took = time.perf_counter() - began
            pause = torch.zeros(round(PAUSE_SECONDS * vocoder.sample_rate))
            joined = torch.cat([piece for wave in made.waves for piece in (wave, pause)][:-1])
            middle = len(made.waves) // 2
            shown = {"the first sound": 0, f"step {middle + 1}": middle, "the second sound": -1}
            mels = {title: vocoder.mel(made.waves[which]) for title, which in shown.items()}
            return Morphed(
                steps=[(vocoder.sample_rate, to_int16(wave)) for wave in made.waves],
                joined=(vocoder.sample_rate, to_int16(joined)),
                mels=plot_mels(mels, None, vocoder.hop_length, vocoder.sample_rate),
                done=f"**{len(made.waves)} steps in {number(took)} s.** The ends are the two sounds, to "
                f"{max(made.errors):.0e} of full scale.",
            )


def numbers_in_words(found: SoundStatistics, spans: list[tuple[float, float]]) -> str:
    """The statistics of a sound as a Markdown table: value, and what it says to somebody who meets it first."""
    where = ", ".join(f"{start:.2f}-{end:.2f} s" for start, end in spans) or "nothing"
    rows = [
        ["bits", f"{found.bits:.2f}", "what lossless coding with this model would need for a 16-bit sample, about"],
        [
            "less linear prediction's",
            f"{found.bits - found.linear_prediction_bits:+.2f}",
            "below 0 is what the model knows beyond a predictor that was never trained",
        ],
        [
            "typicality",
            f"{found.typicality:.3f}",
            "0 if the sound surprises the model just as much as its own sounds do; of people's speech speech-teacher "
            "says about 0.02, of silence 0.2, of a tone 0.4",
        ],
        ["noise: variance", f"{found.variance:.2f}", "1 for the model's own sounds; above, it was surprised more"],
        ["noise: kurtosis", f"{found.kurtosis:.1f}", "3 for its own; above, it was rarely, but badly wrong"],
        ["noise: autocorrelation", f"{found.autocorrelation:.3f}", "0 for its own; else it misses a pattern"],
        ["noise: from a bell curve", f"{found.kolmogorov_smirnov:.3f}", "largest distance; 0 for its own"],
        ["stands out", where, "far more energy of the noise than elsewhere in this sound; red in the picture"],
    ]
    return markdown_table(["number", "here", "in words"], rows, left=3)


def step_of(steps: list[Sound] | None, step: float) -> Sound:
    """Step ``step`` of the last morph, from 1."""
    with errors_shown():
        if steps is None:
            raise WavedistillError("there are no steps yet: morph two sounds first")
        if not 1 <= step <= len(steps):
            raise WavedistillError(f"the morph has steps 1 to {len(steps)}, given {step:g}")
        return steps[int(step) - 1]


def likelihood_tab(likelihood: Likelihood) -> None:
    """Lay out the tab: what there is a model for."""
    if likelihood.models.teachers:
        _score_part(likelihood)
    _morph_part(likelihood)


def _score_part(likelihood: Likelihood) -> None:
    models = likelihood.models
    gr.Markdown(SCORE_INTRO)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            recording = recording_input()
            teacher = choice(models.teachers, "Teacher")
            speaker = choice(models.speakers, "Speaker")
            button = gr.Button("Score", variant="primary")
        with gr.Column(scale=3):
            results = Results("Press **Score** to see how well the teacher knew what came.", "Likelihood", "score")
            with results.shown:
                numbers = gr.Markdown(label="Numbers", elem_classes="numbers")
                picture = picture_output("Nats over time", "score-picture")
    results.run(
        button.click,
        likelihood.score,
        [recording, teacher, speaker],
        [results.status, numbers, picture],
        working="The teacher looks at every sample …",
        api_name="score",
    )


def _morph_part(likelihood: Likelihood) -> None:
    models = likelihood.models
    pairs = {label: _pair(files) for label, files in PAIRS.items()}
    gr.Markdown(MORPH_INTRO)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            opened = next(iter(pairs.values()))
            first, second = (sound_input(label, path) for label, path in zip(("From", "To"), opened, strict=True))
            gr.Examples([*pairs.values()], [first, second], example_labels=list(pairs), label="Examples")
            model = choice([*models.flows, *models.teachers], "Model")
            speakers = [choice(models.speakers, f"Speaker of {name}") for name in ("the first", "the second")]
            count = gr.Slider(FEWEST_STEPS, MOST_STEPS, STEPS, step=1, label="Steps")
            button = gr.Button("Morph", variant="primary")
        with gr.Column(scale=3):
            results = Results("**Morph** makes the steps, and a slider plays each of them.", "Morph", "morph")
            with results.shown:
                step = gr.Slider(1, STEPS, 1, step=1, label="Step", elem_id="morph-step")
                heard = sound_output("This step", autoplay=True)
                joined = sound_output("All steps")
                mels = picture_output("Mel spectrograms", "morph-mels")
    steps = gr.State()
    done = results.run(
        button.click,
        likelihood.morph,
        [first, second, model, count, *speakers],
        [steps, joined, mels, results.status],
        working="The model turns both sounds into noise, and what lies between back into sounds …",
        api_name="morph",
    )
    done.success(lambda made: (gr.Slider(maximum=len(made), value=1), made[0]), steps, [step, heard], **PRIVATE)
    step.input(step_of, [steps, step], heard, api_name="morph_step", show_progress="hidden", trigger_mode="always_last")


def _pair(files: tuple[str, str]) -> list[str]:
    """Paths of an example's two files."""
    folders = (EXAMPLES_FOLDER, find_checkpoint_root() / NOTES_FOLDER)
    return [str(next(folder / file for folder in folders if (folder / file).is_file())) for file in files]


def _known_speaker(name: str | None, vocoder: Vocoder) -> str:
    """A name of the model's, the first where none was chosen; "" for a model without speakers."""
    known = vocoder.model.config.speakers
    return name if name in known else (known or [""])[0]


def _whole_frames(audio: Tensor, vocoder: Vocoder) -> Tensor:
    """Audio as a 16-bit file holds it, without what is left over after whole frames of the mel."""
    return on_grid(audio[: len(audio) // vocoder.hop_length * vocoder.hop_length])
