"""Other vocoders for the benchmark, as far as they are installed.

``python -m wavedistill.benchmark`` alone imports this module, in a process of its own. The vocoders have random weights
(a speed does not depend on them), the published sizes and no weight norm; they run in float32 and inference mode in
their own memory layout, each at its own sample rate.

    Vocos            pip install vocos
                     config of charactr/vocos-mel-24khz; https://arxiv.org/abs/2306.00814
    HiFi-GAN         pip install --no-deps --no-build-isolation parallel_wavegan h5py filelock
                     config_v1 to v3 of the paper's code; https://arxiv.org/abs/2010.05646
    Parallel WaveGAN the same package, parallel_wavegan.v1; https://arxiv.org/abs/1910.11480

parallel_wavegan 0.6.1 is from 2023: its setup needs --no-build-isolation, its other requirements serve training only,
and a function of SciPy that has moved since is put back here. ClariNet's student (https://arxiv.org/abs/1807.07281) has
no package: see `PlainClariNet`.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.benchmark.exported import onnx_system
from wavedistill.benchmark.systems import Run, TimedSystem, timed_model
from wavedistill.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
from wavedistill.nn.wavenet_stack import StackConfig

HOP = 256
PARALLEL_WAVEGAN = "pip install --no-deps --no-build-isolation parallel_wavegan h5py filelock"


def vocos() -> Iterator[TimedSystem]:
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    model = nn.Sequential(VocosBackbone(100, 512, 1536, 8), ISTFTHead(512, 1024, HOP, padding="center"))
    yield peer(
        "Vocos", model, 24000, 100, lambda mel: model(nn.functional.pad(mel, (0, 1)))
    )  # centred frames: one more than hops
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        yield _exported_vocos(model)


def _exported_vocos(model: nn.Sequential) -> TimedSystem:
    """Its inverse transform and overlap-add as one transposed convolution: torch exports no complex numbers."""
    backbone, head = model
    mel = torch.zeros(2, 100, 7)
    axes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        nn.Sequential(backbone, RealHead(head)).eval(),
        (mel,),
        input_names=["mel"],
        dynamic_shapes=(axes,),
        dynamo=True,
        verbose=False,
    )

    def inputs(batch: int, frames: int) -> dict[str, Any]:
        return {"mel": torch.randn(batch, 100, frames + 1, generator=torch.Generator().manual_seed(0)).numpy()}

    note = "its inverse transform as a transposed convolution, which ONNX can express"
    return onnx_system("Vocos", program.model_proto.SerializeToString(), 24000, HOP, inputs, "peer", note)


class RealHead(nn.Module):
    """What Vocos' head computes, in real numbers: magnitudes and phases (batch, frames, channels) to a wave."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.out = head.out
        window = head.istft.window.double()
        size = len(window)
        angles = 2 * math.pi / size * torch.arange(size // 2 + 1)[:, None].double() * torch.arange(size)
        fold = torch.full((size // 2 + 1, 1), 2.0).double()
        fold[0] = fold[-1] = 1.0
        basis = torch.cat([fold * angles.cos(), -fold * angles.sin()]) / size * window
        self.register_buffer("basis", basis.float().unsqueeze(1))
        self.register_buffer("weight", window.square().float()[None, None])

    def forward(self, x: Tensor) -> Tensor:
        magnitude, phase = self.out(x).transpose(1, 2).chunk(2, dim=1)
        magnitude = magnitude.exp().clip(max=1e2)
        spectrum = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)
        wave = nn.functional.conv_transpose1d(spectrum, self.basis, stride=HOP)
        total = nn.functional.conv_transpose1d(torch.ones_like(spectrum[:, :1]), self.weight, stride=HOP)
        half = self.weight.shape[-1] // 2
        return (wave / total.clamp_min(1e-11))[:, 0, half:-half]


def parallel_wavegan() -> Iterator[TimedSystem]:
    import scipy.signal
    from scipy.signal.windows import kaiser

    scipy.signal.kaiser = kaiser  # its place until SciPy 1.12
    from parallel_wavegan.models import HiFiGANGenerator, ParallelWaveGANGenerator

    sizes = {
        "HiFi-GAN V1": {},
        "HiFi-GAN V2": {"channels": 128},
        "HiFi-GAN V3": {
            "channels": 256,
            "upsample_scales": (8, 8, 4),
            "upsample_kernel_sizes": (16, 16, 8),
            "resblock_kernel_sizes": (3, 5, 7),
            "resblock_dilations": [(1, 2), (2, 6), (3, 12)],
            "use_additional_convs": False,
        },
    }
    for name, size in sizes.items():
        generator = HiFiGANGenerator(**size)
        generator.remove_weight_norm()
        yield peer(name, generator, 22050, 80)
    generator = ParallelWaveGANGenerator(aux_context_window=2, upsample_params={"upsample_scales": [4, 4, 4, 4]})
    generator.remove_weight_norm()
    yield peer(
        "Parallel WaveGAN",
        generator,
        22050,
        80,
        lambda mel: generator(
            torch.randn(len(mel), 1, HOP * mel.shape[-1], device=mel.device),
            nn.functional.pad(mel, (2, 2), "replicate"),
        ),
    )


def clarinet() -> Iterator[TimedSystem]:
    """The open ClariNet student's shape, plainly and in this package's layers."""
    note = (
        "six flows of ten layers, kernel 3, residual 64, gate 128, skip 64, mel of 80 bands repeated to the sample "
        "rate, written here with Conv1d"
    )
    yield peer("ClariNet student, plain", PlainClariNet(), 22050, 80, note=note)
    config = ParallelWaveNetConfig(num_flows=6, stack=StackConfig(10, 1, 3, 64, 64), linear_order=0, source_order=0)
    note = (
        "six flows of ten layers, kernel 3, 64 channels (gate 64), of this package's ParallelWaveNet without front "
        "and source"
    )
    yield timed_model("6 x 10 x 64 student, our layers", ParallelWaveNet(config), "peer", note)


class PlainClariNet(nn.Module):
    """A student of six IAFs of ten layers each in the shape of the open ClariNet student (5.2 million weights).

    The conditioning network is left out, which favours it: the mel (batch, 80, frames) is repeated to the sample rate.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flows = nn.ModuleList(PlainFlow() for _ in range(6))

    def forward(self, mel: Tensor) -> Tensor:
        condition = mel.repeat_interleave(HOP, dim=-1)
        z = torch.randn(len(mel), 1, condition.shape[-1], device=mel.device)
        for flow in self.flows:
            loc, log_scale = flow(z, condition)
            z = z * torch.exp(log_scale) + loc
        return z


class PlainFlow(nn.Module):
    """loc and log_scale of every sample from the samples before it.

    Shapes: samples, loc and log_scale (batch, 1, time), condition (batch, 80, time).
    """

    def __init__(self, layers: int = 10, residual: int = 64, gate: int = 128, skip: int = 64, front: int = 32) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, residual, front)
        self.filters = nn.ModuleList(nn.Conv1d(residual, gate, 3, dilation=2**n) for n in range(layers))
        self.gates = nn.ModuleList(nn.Conv1d(residual, gate, 3, dilation=2**n) for n in range(layers))
        self.filter_conditions = nn.ModuleList(nn.Conv1d(80, gate, 1) for _ in range(layers))
        self.gate_conditions = nn.ModuleList(nn.Conv1d(80, gate, 1) for _ in range(layers))
        self.residuals = nn.ModuleList(nn.Conv1d(gate, residual, 1) for _ in range(layers))
        self.skips = nn.ModuleList(nn.Conv1d(gate, skip, 1) for _ in range(layers))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, 2, 1))
        nn.init.zeros_(self.head[-1].weight)

    def forward(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        shifted = nn.functional.pad(z[..., :-1], (self.front.kernel_size[0], 0))
        h = torch.relu(self.front(shifted))
        total = 0.0
        layers = zip(
            self.filters,
            self.gates,
            self.filter_conditions,
            self.gate_conditions,
            self.residuals,
            self.skips,
            strict=True,
        )
        for filters, gates, filter_condition, gate_condition, residual, skip in layers:
            past = nn.functional.pad(h, (2 * filters.dilation[0], 0))
            gated = torch.tanh(filters(past) + filter_condition(condition)) * torch.sigmoid(
                gates(past) + gate_condition(condition)
            )
            h = (h + residual(gated)) * 0.5**0.5
            total = total + skip(gated)
        loc, log_scale = self.head(total).chunk(2, dim=1)
        return loc, log_scale


def peer(
    name: str,
    module: nn.Module,
    sample_rate: int,
    n_mels: int,
    run: Callable[[Tensor], Tensor] | None = None,
    note: str = "",
) -> TimedSystem:
    """A vocoder that takes a mel (batch, n_mels, frames) of 256 samples a frame."""

    def prepare(batch: int, frames: int, device: str) -> Run:
        mel = torch.randn(batch, n_mels, frames, generator=torch.Generator().manual_seed(0)).to(device)
        return lambda: (run or module)(mel)

    return TimedSystem(name, module.eval(), sample_rate, HOP, prepare, "peer", note)


class Peers(NamedTuple):
    """The vocoders that can be had, and a line about each that cannot."""

    systems: list[TimedSystem]
    missing: list[str]


def installed_vocoders() -> Peers:
    """Build every vocoder whose package is installed."""
    found = Peers([], [])
    warnings.simplefilter("ignore", FutureWarning)  # their old torch calls
    for build, remedy in ((vocos, "pip install vocos"), (parallel_wavegan, PARALLEL_WAVEGAN), (clarinet, "")):
        torch.manual_seed(0)
        try:
            found.systems.extend(build())
        except ImportError as error:
            found.missing.append(f"{build.__name__} is not installed ({error}): {remedy}.")
    return found
