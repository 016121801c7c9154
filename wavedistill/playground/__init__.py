"""Flows in the plane: densities to fit, every family of flows, and pictures of how each layer warps the prior."""

from wavedistill.playground.animation import animate_layers
from wavedistill.playground.densities import DENSITIES, Density
from wavedistill.playground.families import FAMILIES, Family
from wavedistill.playground.fit import Fit, Progress, fit_density, training
from wavedistill.playground.pictures import plot_layers
from wavedistill.playground.run import PlaygroundReport, run_playground
from wavedistill.playground.stages import Stage, warp_stages

__all__ = [
    "DENSITIES",
    "FAMILIES",
    "Density",
    "Family",
    "Fit",
    "PlaygroundReport",
    "Progress",
    "Stage",
    "animate_layers",
    "fit_density",
    "plot_layers",
    "run_playground",
    "training",
    "warp_stages",
]
