"""The tab "Flow playground": pick a density and a flow family, train for seconds, watch the layers warp the prior."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

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

MIN_SECONDS = 2
MAX_SECONDS = 30
MAX_DEPTH = 32
INTRO = """A normalizing flow is a chain of bijections from noise to data. Pick what to fit and a kind of layer: the
flow is trained by maximum likelihood here and now, then shown layer by layer. No flow can have fewer nats than the
density's entropy."""

Shown = tuple[str, str | dict, str | dict]
"""Caption, picture of the layers and animation."""


class Stopper:
    """One visitor's wish to end the training early."""

    def __init__(self) -> None:
        self.asked = False


class Playground:
    """What the tab's controls do.

    Args:
        busy: lock of the page's computations; held while one runs, not while the page takes a report.
        errors_shown: context that shows a `WavedistillError` on the page.
    """

    def __init__(self, busy: AbstractContextManager, errors_shown: Callable[[], AbstractContextManager]) -> None:
        self._busy = busy
        self._errors_shown = errors_shown

    def about(self, family: str) -> tuple[str, int]:
        """What a layer of the family does, and the family's own depth."""
        return _about(family), FAMILIES[family].depth

    def stop(self, stopper: Stopper) -> None:
        """End the visitor's training at its next report; what is trained by then is drawn."""
        stopper.asked = True

    def train(
        self, density: str, family: str, depth: float, seconds: float, seed: float | None, stopper: Stopper
    ) -> Iterator[Shown]:
        """Train and draw: first reports, with the pictures left empty, at last the pictures."""
        stopper.asked = False
        with self._errors_shown():
            run = training(family, density, int(depth), None, int(seed or 0), min(float(seconds), MAX_SECONDS))
            report: Progress | Fit | None = None
            while True:
                with self._busy:
                    report = _next(run, stop=stopper.asked and report is not None)
                if isinstance(report, Fit):
                    break
                yield _progress(report, DENSITIES[density].entropy), None, None
            yield _result(report) + "  \ndrawing …", gr.skip(), gr.skip()
            with tempfile.TemporaryDirectory() as folder:
                with self._busy:
                    stages = warp_stages(report.flow)
                    title = f"{FAMILIES[family].title} on {DENSITIES[density].title}"
                    layers, animation = (
                        str(Path(folder) / f"{density}-{family}.{suffix}") for suffix in ("png", "gif")
                    )
                    plot_layers(report.flow, layers, DENSITIES[density], stages)
                    animate_layers(report.flow, animation, stages, title)
                yield _result(report), layers, animation  # the page has copies of the files when it asks for more


def playground_tab(playground: Playground, **compute: object) -> None:
    """Lay out the tab; ``compute`` goes to the button's event."""
    gr.Markdown(INTRO)
    first = "realnvp"
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            density = gr.Dropdown(
                [(d.title, name) for name, d in DENSITIES.items()], value="two_moons", label="Target density"
            )
            family = gr.Dropdown([(f.title, name) for name, f in FAMILIES.items()], value=first, label="Flow family")
            about = gr.Markdown(_about(first), elem_classes="caption")
            depth = gr.Slider(1, MAX_DEPTH, FAMILIES[first].depth, step=1, label="Depth (layers)")
            seconds = gr.Slider(MIN_SECONDS, MAX_SECONDS, 10, step=1, label="Training time (s)")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            with gr.Row():
                button = gr.Button("Train", variant="primary")
                stop = gr.Button("Stop and draw")
            stopper = gr.State(Stopper())  # Gradio copies it for each visitor
        with gr.Column(scale=3):
            caption = gr.Markdown("Nothing is trained yet.", elem_classes="caption", elem_id="flow-caption")
            layers = gr.Image(
                type="filepath",
                interactive=False,
                show_label=False,
                elem_id="flow-layers",
                buttons=["download", "fullscreen"],
            )
            animation = gr.Image(
                type="filepath",
                interactive=False,
                show_label=False,
                elem_id="flow-animation",
                buttons=["download"],
                height=380,
            )
    family.change(playground.about, family, [about, depth], api_visibility="private", show_progress="hidden")
    button.click(
        playground.train,
        [density, family, depth, seconds, seed, stopper],
        [caption, layers, animation],
        api_name="playground",
        show_progress_on=caption,
        **compute,
    )
    stop.click(playground.stop, stopper, None, api_visibility="private", queue=False)


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
