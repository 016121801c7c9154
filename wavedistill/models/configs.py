"""The settings of teacher, student and one-stage flow, and what makes them possible."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from wavedistill.audio.mel import MelConfig
from wavedistill.errors import WavedistillError
from wavedistill.models.front import FrontConfig
from wavedistill.nn.wavenet_stack import StackConfig

GRID_HOP = 256
"""Block of samples that a model without a mel works in."""
LARGEST = 4096
LARGEST_BY_NAME = {
    "sample_rate": 768_000,
    "n_fft": 32_768,
    "win_length": 32_768,
    "hop_length": 32_768,
    "n_mels": 1024,
    "num_classes": 65_536,
}
"""Whole numbers beyond these (`LARGEST` where a name is missing) are mistakes: no memory holds such a model."""
MOST_DILATIONS = 20
"""Layers of a cycle: the last one then reaches back 2^19 samples."""
MAY_BE_ZERO = {
    *("linear_order", "source_order", "source_iterations", "long_term_order", "split_every"),
    *("mel_prediction_order", "mel_contraction"),
}


@dataclass
class WaveNetConfig:
    """A teacher.

    Attributes:
        mel: settings of the log-mel condition; None for a model without one.
        sample_rate: Hz; must be the mel's where there is one.
        speakers: names of known speakers; empty for a model without speaker condition.
        distribution: "gaussian", "mol" (mixture of logistics) or "mulaw" (categorical over mu-law cells).
        num_mixtures: components of "mol".
        num_classes: cells of "mulaw".
        log_scale_min: floor of log-scales (in the network's domain, after the front).
        stack: size of the causal stack.
        cond_channels: width of the condition, made by the `MelEncoder`.
        cond_upsample: blocks per mel frame at which the condition changes.
        linear_order: steps that the learned linear-prediction path reaches back, set block by block from the condition
            (0: off; not with "mulaw").
        front: invertible pre-processing; with ``front.bands`` M the stack makes a step of M sub-band values at a time.
    """

    mel: MelConfig | None = field(default_factory=MelConfig)
    sample_rate: int = 16000
    speakers: list[str] = field(default_factory=list)
    distribution: Literal["gaussian", "mol", "mulaw"] = "gaussian"
    num_mixtures: int = 10
    num_classes: int = 256
    log_scale_min: float = -9.0
    stack: StackConfig = field(default_factory=StackConfig)
    cond_channels: int = 128
    cond_upsample: int = 4
    linear_order: int = 32
    front: FrontConfig = field(default_factory=FrontConfig)

    def __post_init__(self) -> None:
        _check_common(self)
        if self.distribution == "mulaw" and (self.linear_order or self.front != FrontConfig()):
            raise WavedistillError(
                "distribution 'mulaw' models the waveform itself: set linear_order: 0 and leave front at its defaults."
            )


@dataclass
class ParallelWaveNetConfig:
    """A student.

    Attributes:
        mel, sample_rate, speakers, cond_channels, cond_upsample, front: as in `WaveNetConfig`; mel and front must be
            the teacher's.
        num_flows: inverse autoregressive flows.
        stack: size of the stack inside each flow.
        patch_size: steps of the front (of ``front.bands`` values) that a step of a flow's stack stands for; patches
            must fill the blocks of the condition.
        linear_order: steps that each flow's linear path from the noise before reaches back (0: off).
        source_order: steps of each flow's linear path from a harmonic source, whose pitch is predicted from the mel (0:
            no source).
        source_iterations: projections that fit the source's spectrum to the mel.
        log_scale_min: floor of each flow's log-scale.
        initial_log_scale: log-scale of the whole stack before training.
    """

    mel: MelConfig | None = field(default_factory=MelConfig)
    sample_rate: int = 16000
    speakers: list[str] = field(default_factory=list)
    num_flows: int = 2
    stack: StackConfig = field(default_factory=lambda: StackConfig(8, 1, 3, 32, 32))
    patch_size: int = 1
    cond_channels: int = 128
    cond_upsample: int = 4
    linear_order: int = 32
    source_order: int = 32
    source_iterations: int = 3
    log_scale_min: float = -7.0
    initial_log_scale: float = -0.7
    front: FrontConfig = field(default_factory=FrontConfig)

    def __post_init__(self) -> None:
        _check_common(self)
        block = _block(self)
        if self.patch_size < 1 or block % self.step_size:
            raise WavedistillError(
                f"patch_size * front.bands must divide the {block} samples of a block of the condition (hop_length / "
                f"cond_upsample), got {self.patch_size} * {self.front.bands}."
            )
        if self.source_order and self.mel is None:
            raise WavedistillError(
                "source_order needs a mel to read the pitch from; set it to 0 for a model without mel."
            )

    @property
    def step_size(self) -> int:
        """Values that a step of a flow's stack makes."""
        return self.patch_size * self.front.bands


@dataclass
class WaveformFlowConfig:
    """A one-stage flow.

    Attributes:
        mel, sample_rate, speakers, cond_channels, cond_upsample, front: as in `WaveNetConfig`.
        squeeze: samples that become the channels of one step; must divide a block (hop_length / cond_upsample).
        num_flows: pairs of an invertible 1x1 convolution and a coupling.
        split_every: after so many flows ``split_channels`` channels go to the noise as they are (0: never).
        split_channels: channels that leave at each split.
        stack: size of the centred stack inside each coupling; its kernel_size must be odd.
        long_term_order: taps of the long-term predictor, an odd number, whose lag is a pitch period predicted from the
            mel (0: none).
        reversible: compute activations again in the backward pass instead of keeping them: memory that does not grow
            with num_flows.
    """

    mel: MelConfig | None = field(default_factory=MelConfig)
    sample_rate: int = 16000
    speakers: list[str] = field(default_factory=list)
    squeeze: int = 8
    num_flows: int = 12
    split_every: int = 4
    split_channels: int = 2
    stack: StackConfig = field(default_factory=lambda: StackConfig(4, 1, 3, 96, 96))
    cond_channels: int = 128
    cond_upsample: int = 4
    long_term_order: int = 17
    reversible: bool = False
    front: FrontConfig = field(default_factory=FrontConfig)

    def __post_init__(self) -> None:
        _check_common(self)
        block = _block(self)
        if self.squeeze < 2 or block % self.squeeze:
            raise WavedistillError(
                f"squeeze must be at least 2 and divide a block of {block} samples, got {self.squeeze}."
            )
        if self.front.mel_contraction:
            raise WavedistillError("front.mel_contraction is for teachers and students; set it to 0 for a flow.")
        splits = (self.num_flows - 1) // self.split_every if self.split_every else 0
        if self.squeeze - splits * self.split_channels < 2 or self.split_every < 0 or self.split_channels < 1:
            raise WavedistillError(
                f"{splits} splits of {self.split_channels} of {self.squeeze} channels leave fewer than the 2 that "
                "a coupling needs: "
                "raise split_every or squeeze, or lower split_channels."
            )
        if self.stack.kernel_size % 2 == 0:
            raise WavedistillError(f"stack: kernel_size must be odd for a centred stack, got {self.stack.kernel_size}.")
        if self.long_term_order and (self.mel is None or self.long_term_order % 2 == 0):
            raise WavedistillError(
                f"long_term_order is {self.long_term_order}; it must be odd, or 0 for none (a model without mel "
                "has no pitch to go by)."
            )


ModelConfig = WaveNetConfig | ParallelWaveNetConfig | WaveformFlowConfig


def _block(config: ModelConfig) -> int:
    """Samples of a block of the condition."""
    return (config.mel.hop_length if config.mel else GRID_HOP) // config.cond_upsample


def least_weights(config: ModelConfig) -> int:
    """Numbers that the stacks and the encoder of the mel alone consist of: fewer are no model of this configuration."""
    stack = config.stack
    cond = config.cond_channels if config.mel or config.speakers else 0
    layer = stack.channels * (2 * stack.channels * stack.kernel_size + stack.skip_channels + 2 * cond)
    encoder = 3 * cond * (config.mel.n_mels + 2 * cond) if config.mel else 0
    return getattr(config, "num_flows", 1) * (stack.num_layers * layer + stack.skip_channels**2) + encoder


def _check_numbers(config: Any, where: str = "") -> None:
    """Every number is finite, every whole one in its range."""
    for one in fields(config):
        value = getattr(config, one.name)
        name = where + one.name
        if is_dataclass(value):
            _check_numbers(value, f"{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise WavedistillError(f"{name} must be a finite number, got {value}.")
        elif one.type == "int":
            least = 0 if one.name in MAY_BE_ZERO else 1
            most = LARGEST_BY_NAME.get(one.name, LARGEST)
            if not least <= value <= most:
                raise WavedistillError(f"{name} must be from {least} to {most}, got {value}.")


def _check_common(config: ModelConfig) -> None:
    """What all three need."""
    _check_numbers(config)
    stack = config.stack
    if stack.num_layers % stack.num_cycles:
        raise WavedistillError(
            f"stack: num_layers ({stack.num_layers}) must be a multiple of num_cycles ({stack.num_cycles})."
        )
    if stack.num_layers // stack.num_cycles > MOST_DILATIONS:
        raise WavedistillError(
            f"stack: num_layers / num_cycles must be at most {MOST_DILATIONS}, got {stack.num_layers} / "
            f"{stack.num_cycles}: each layer of a cycle doubles the dilation."
        )
    if stack.kernel_size < 2:
        raise WavedistillError(f"stack: kernel_size must be at least 2, got {stack.kernel_size}.")
    if config.mel is not None and config.mel.sample_rate != config.sample_rate:
        raise WavedistillError(
            f"sample_rate is {config.sample_rate} Hz but mel.sample_rate is {config.mel.sample_rate} Hz: make "
            "them equal."
        )
    if config.mel is not None and config.mel.hop_length % config.cond_upsample:
        raise WavedistillError(
            f"mel.hop_length ({config.mel.hop_length}) must be a multiple of cond_upsample ({config.cond_upsample})."
        )
    block = _block(config)
    if block % config.front.bands:
        raise WavedistillError(
            f"front.bands must divide the {block} samples of a block of the condition (hop_length / cond_upsample), "
            f"got {config.front.bands}."
        )
    for name in ("mel_prediction_order", "mel_contraction"):
        if getattr(config.front, name) and config.mel is None:
            raise WavedistillError(f"front.{name} needs a mel; set it to 0 for a model without mel.")
