"""The tab "Flows": pick a density and a flow family, train for seconds, watch the layers warp the prior."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from wavedistill.playground import (
    DENSITIES,
    FAMILIES,
    Fit,
    Progress,
    animate_layers,
    plot_layers,
    training,
    warp_stages,
)

from .errors import errors_shown
from .widgets import PRIVATE, Results

MIN_SECONDS = 2
MAX_SECONDS = 30
MAX_DEPTH = 32
FIRST_FAMILY = "realnvp"
INTRO = """A normalizing flow is a chain of bijections from noise to data. Choose a density and a kind of layer: the
flow is trained by maximum likelihood for some seconds, then shown layer by layer. Fewer nats are better; the entropy of
the density is the least that is possible."""


class Shown(NamedTuple):
    """A report or the result in words, and the paths of both pictures (None: not drawn yet)."""

    caption: str
    layers: str | dict | None
    animation: str | dict | None


class StopRequest:
    """Whether a visitor asks for the end of the running training; every visitor has one."""

    def __init__(self) -> None:
        self.stop_requested = False


class Playground:
    """The functions of the tab.

    Args:
        busy: lock of the page's computations; held while one runs, not while the page takes a report.
    """

    def __init__(self, busy: AbstractContextManager) -> None:
        self._busy = busy

    def about(self, family: str) -> tuple[str, int]:
        """What a layer of the family does, and the family's own depth."""
        return _about(family), FAMILIES[family].depth

    def stop(self, request: StopRequest) -> None:
        """End the visitor's training at its next report; what is trained by then is drawn."""
        request.stop_requested = True

    def train(
        self, density: str, family: str, depth: float, seconds: float, seed: float | None, request: StopRequest
    ) -> Iterator[Shown]:
        """Train and draw: first reports without pictures, at last the result with both."""
        request.stop_requested = False
        with errors_shown():
            run = training(family, density, int(depth), None, int(seed or 0), min(float(seconds), MAX_SECONDS))
            report: Progress | Fit | None = None
            while True:
                with self._busy:
                    report = _next(run, stop=request.stop_requested and report is not None)
                if isinstance(report, Fit):
                    break
                yield Shown(_progress(report, DENSITIES[density].entropy), None, None)
            yield Shown(_result(report) + "  \ndrawing …", gr.skip(), gr.skip())
            with tempfile.TemporaryDirectory() as folder:
                with self._busy:
                    layers, animation = _draw(report, Path(folder), density, family)
                # the page has copies of the files when it asks for more
                yield Shown(_result(report), str(layers), str(animation))


def playground_tab(playground: Playground) -> None:
    """Lay out the tab."""
    gr.Markdown(INTRO)
    densities = [(density.title, name) for name, density in DENSITIES.items()]
    families = [(family.title, name) for name, family in FAMILIES.items()]
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            density = gr.Dropdown(densities, value="two_moons", label="Target density")
            family = gr.Dropdown(families, value=FIRST_FAMILY, label="Flow family")
            about = gr.Markdown(_about(FIRST_FAMILY), elem_classes="caption")
            with gr.Row(equal_height=True):
                button = gr.Button("Train", variant="primary", min_width=120)
                stop = gr.Button("Stop and draw", min_width=120, elem_classes="narrow")
            with gr.Accordion("Options", open=False):
                depth = gr.Slider(1, MAX_DEPTH, FAMILIES[FIRST_FAMILY].depth, step=1, label="Depth (layers)")
                seconds = gr.Slider(MIN_SECONDS, MAX_SECONDS, 10, step=1, label="Training time (s)")
                seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            request = gr.State(StopRequest())  # Gradio copies it for each visitor
        with gr.Column(scale=3):
            results = Results(
                "Press **Train**: here you see the nats of held-out points while the flow is trained, then a picture "
                "of each layer.",
                label="Result",
                elem_id="flow-caption",
            )
            with results.shown:
                layers = _picture("Layers", "flow-layers", buttons=["download", "fullscreen"])
                animation = _picture("Animation", "flow-animation", buttons=["download"])
    family.change(playground.about, family, [about, depth], **PRIVATE)
    results.run(
        button.click,
        playground.train,
        [density, family, depth, seconds, seed, request],
        [results.status, layers, animation],
        working="The training begins …",
        meanwhile=False,
        api_name="playground",
    )
    stop.click(playground.stop, request, None, **PRIVATE)


def _picture(label: str, elem_id: str, **options: object) -> gr.Image:
    return gr.Image(label=label, show_label=False, elem_id=elem_id, type="filepath", interactive=False, **options)


def _draw(fit: Fit, folder: Path, density: str, family: str) -> tuple[Path, Path]:
    """Paths of the picture of the layers and of the animation."""
    stages = warp_stages(fit.flow)
    layers = folder / f"{density}-{family}.png"
    animation = folder / f"{density}-{family}.gif"
    plot_layers(fit.flow, str(layers), DENSITIES[density], stages)
    animate_layers(fit.flow, str(animation), stages, f"{FAMILIES[family].title} on {DENSITIES[density].title}")
    return layers, animation


def _next(run: Generator[Progress, bool | None, Fit], stop: bool) -> Progress | Fit:
    try:
        return run.send(True if stop else None)
    except StopIteration as end:
        return end.value


def _about(family: str) -> str:
    return f"{FAMILIES[family].title}: {FAMILIES[family].summary}."


def _progress(report: Progress, entropy: float) -> str:
    done = round(20 * report.share)
    return (
        f"**{report.held_out_nats:.3f} nats** held out after {report.step} steps, {report.seconds:.1f} s (entropy "
        f"{entropy:.3f})  \n"
        f"`{'█' * done}{'░' * (20 - done)}` {100 * report.share:.0f} %"
    )


def _result(fit: Fit) -> str:
    return (
        f"**{fit.nats:.3f} nats** held out, {fit.gap:.3f} above the entropy of {fit.entropy:.3f}  \n"
        f"{fit.steps} steps in {fit.seconds:.1f} s, {fit.parameters:,} parameters"
    )
