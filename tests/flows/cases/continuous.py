"""Continuous flows."""

import importlib.util

import torch
from helpers.flow_case import Case, shake

BRANCHES = "torchdiffeq branches in Python on the values of its times, also with fixed steps"
COMPILE = {"compile": BRANCHES, "gpu": BRANCHES}
VMAP = {"vmap": "as one batch"}
ADAPTIVE = VMAP | {
    "torch_func": "a solver with fixed steps",
    "second_derivatives": "adjoint=False",
    "second_derivatives_by_torch_func": "a solver with fixed steps",
}


def continuous(dim, kernel_size=1, **options):
    from wavedistill.flows import ContinuousFlow, NetworkConfig

    network = NetworkConfig(6, 1, kernel_size)
    return shake(ContinuousFlow(dim, network=network, **({"solver": "dopri8"} | options)), 0.2)


CASES = {}
if importlib.util.find_spec("torchdiffeq"):
    CASES = {
        "continuous": Case(
            lambda: continuous(3),
            (3,),
            density=lambda dim: continuous(dim, solver="rk4", step_size=0.5),
            exempt=COMPILE,
            refuses=ADAPTIVE,
        ),
        "continuous-waveform": Case(
            lambda: continuous(1, kernel_size=3, cond_dim=2),
            (1, 5),
            cond=lambda batch: torch.randn(batch, 2),
            events=[(1, 1), (1, 4)],
            refuses=ADAPTIVE,
            slow=frozenset({"gradients", "second_derivatives"}),
            exempt=COMPILE
            | {
                "long": (
                    "the exact trace of 240,000 samples takes 240,000 products; test_continuous.py has an estimated one"
                )
            },
        ),
        # Steps of 0.1 leave errors of about 1e-8, which the adaptive solver of the cases above does not.
        "continuous-fixed-steps": Case(
            lambda: continuous(2, solver="rk4", step_size=0.1, adjoint=False),
            (2,),
            tolerance64=1e-7,
            log_det_tolerance=1e-7,
            exempt=COMPILE,
            refuses=VMAP,
            slow=frozenset({"gradients"}),
        ),
    }
