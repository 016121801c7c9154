"""A run that starts from the weights of a model of another size."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import torch

from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.errors import WavedistillError
from wavedistill.models.configs import ParallelWaveNetConfig, WaveNetConfig
from wavedistill.models.front import FrontConfig
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.pretrained import save_pretrained
from wavedistill.models.wavenet import WaveNet
from wavedistill.nn.wavenet_stack import StackConfig
from wavedistill.training.warm_start import load_weights

STACK = StackConfig(num_layers=2, num_cycles=1, kernel_size=2, channels=8, skip_channels=8)


def teacher(bands: int, n_mels: int = 8, channels: int = 8) -> WaveNet:
    mel = MelConfig(n_fft=64, win_length=64, hop_length=32, n_mels=n_mels)
    stack = StackConfig(2, 1, 2, channels, channels)
    config = WaveNetConfig(
        mel=mel, stack=stack, cond_channels=6, cond_upsample=2, linear_order=3, front=FrontConfig(bands=bands)
    )
    model = WaveNet(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_the_lower_bands_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    donor = teacher(bands=4)
    model = teacher(bands=8, n_mels=10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint = str(save_pretrained(donor, tmp_path / "donor"))
    with pytest.raises(WavedistillError, match="has shape.*--run.init_resize\\.$"):
        load_weights(model, checkpoint)
    with caplog.at_level(logging.WARNING):
        load_weights(model, checkpoint, resize=True)
    given, network = donor.predictor, model.predictor
    torch.testing.assert_close(network.stack.convs[1].weight, given.stack.convs[1].weight)
    torch.testing.assert_close(network.stack.input.weight[:, :4], given.stack.input.weight)
    # two parameters a value: eight rows are those of the four lowest bands
    torch.testing.assert_close(network.stack.output.weight[:8], given.stack.output.weight)
    torch.testing.assert_close(network.stack.output.bias[:8], given.stack.output.bias)
    condition = torch.randn(1, 3, 6)
    ours, _ = network.linear_taps(condition, 1)
    theirs, _ = given.linear_taps(condition, 1)
    torch.testing.assert_close(ours[..., :4, :4], theirs)
    # the rest keeps what it had
    torch.testing.assert_close(network.stack.input.weight[:, 4:], before["predictor.stack.input.weight"][:, 4:])
    assert "is of another size" in caplog.text and "conditioning.frames.0.weight" in caplog.text


def test_a_mel_of_other_settings_is_read_as_the_donor_s(tmp_path: Path) -> None:
    """Of noise, whose level in every band both mels state: the same features come out."""
    donor = teacher(bands=4)
    wide = MelConfig(n_fft=128, win_length=96, hop_length=32, n_mels=12, norm=None, mel_scale="htk", f_max=7000.0)
    model = WaveNet(dataclasses.replace(donor.config, mel=wide))
    load_weights(model, str(save_pretrained(donor, tmp_path / "donor")), resize=True)
    noise = torch.randn(2, 32 * 4000, generator=torch.Generator().manual_seed(0))
    noise[1] *= 0.1
    with torch.no_grad():
        # the mean of the log mels over time, as a steady sound
        mels = (LogMelSpectrogram(one.config.mel)(noise) for one in (model, donor))
        ours, theirs = (mel.mean(-1, keepdim=True).expand(-1, -1, 8) for mel in mels)
        read, wanted = model.conditioning(ours, None), donor.conditioning(theirs, None)
        fresh = WaveNet(model.config).conditioning(ours, None)
    error = (read - wanted).square().mean() / wanted.square().mean()
    assert error < 0.01 < (fresh - wanted).square().mean() / wanted.square().mean()


def student(num_layers: int, num_flows: int, linear_order: int, source_order: int) -> ParallelWaveNet:
    config = ParallelWaveNetConfig(
        mel=MelConfig(n_fft=64, win_length=64, hop_length=32, n_mels=8),
        num_flows=num_flows,
        stack=StackConfig(num_layers, 1, 2, 8, 8),
        cond_channels=6,
        cond_upsample=2,
        linear_order=linear_order,
        source_order=source_order,
        source_iterations=0,
        front=FrontConfig(bands=4),
    )
    model = ParallelWaveNet(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_the_first_layers_and_the_nearest_steps_are_taken(tmp_path: Path) -> None:
    """Of a flow whose linear path reaches back further, on the signal and on the source."""
    donor = student(num_layers=3, num_flows=2, linear_order=3, source_order=4)
    model = student(num_layers=2, num_flows=1, linear_order=1, source_order=2)
    load_weights(model, str(save_pretrained(donor, tmp_path / "donor")), resize=True)
    ours, theirs = model.flows[0].predictor, donor.flows[0].predictor
    condition = torch.randn(1, 3, 6)
    for own, given, steps in zip(ours.linear_taps(condition, 1), theirs.linear_taps(condition, 1), (1, 2), strict=True):
        torch.testing.assert_close(own, given[:, :, :steps])
    for own, given in zip(
        ours.stack.project_condition(condition), theirs.stack.project_condition(condition)[:2], strict=True
    ):
        torch.testing.assert_close(own, given)


def test_too_little_in_common(tmp_path: Path) -> None:
    checkpoint = str(save_pretrained(teacher(bands=4), tmp_path / "donor"))
    with pytest.raises(WavedistillError, match=r"Only [\d,]+ of [\d,]+ weights fit"):
        load_weights(teacher(bands=4, channels=32), checkpoint, resize=True)
    student = ParallelWaveNet(
        ParallelWaveNetConfig(mel=None, num_flows=1, stack=STACK, cond_channels=4, linear_order=2, source_order=0)
    )
    with pytest.raises(WavedistillError, match="a student is needed, this is a teacher"):
        load_weights(student, checkpoint, resize=True)
