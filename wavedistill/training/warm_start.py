"""Start a run from the weights of a checkpoint: of the same size, or of another."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavedistill.audio.mel_between import mel_between
from wavedistill.errors import WavedistillError
from wavedistill.models.base import WaveformModel
from wavedistill.nn.causal_network import CausalNetwork
from wavedistill.nn.mel_encoder import MEL_DEVIATION, MelEncoder
from wavedistill.nn.pitch_predictor import PitchPredictor

logger = logging.getLogger(__name__)


def load_weights(model: WaveformModel, checkpoint: str, resize: bool = False) -> None:
    """Give a model the weights of a checkpoint (``run.init_from``, ``run.init_resize``).

    Args:
        model: a fresh one; keeps what it does not get.
        resize: take what fits of a model of another size: tensors of the same size whole, and of the networks that read
            and make the bands of a step (``front.bands``) the bands that both have, the lowest ones, the first layers
            of a deeper stack and the nearest steps of a longer linear path; what reads a mel of other settings reads in
            it the donor's (`mel_between`). What was taken in part and what was not is logged.

    Raises:
        WavedistillError: its tensors are not the model's, names the first one that differs; with ``resize``, it is
            another kind of model, or less than half of the model's weights would come from it.
    """
    from wavedistill.models.pretrained import load_pretrained

    donor = load_pretrained(checkpoint)
    given = donor.state_dict()
    needed = model.state_dict()
    wrong = [n for n in sorted(given.keys() | needed.keys()) if _shape(given.get(n)) != _shape(needed.get(n))]
    if not wrong:
        model.load_state_dict(given)
        if resize:
            _take_mel_readers(model, donor)
        return
    name = wrong[0]
    differ = (
        f"run.init_from {checkpoint}: tensor {name} has shape {_shape(given.get(name))}, the model needs "
        f"{_shape(needed.get(name))} ({len(wrong)} differ). "
    )
    if not resize:
        raise WavedistillError(
            differ + "Use the checkpoint's model configuration, or take what fits: --run.init_resize."
        )
    if donor.model_type != model.model_type:
        raise WavedistillError(
            f"run.init_from {checkpoint}: a {model.role_name} is needed, this is a {donor.role_name}."
        )
    _take_what_fits(model, donor, checkpoint, differ)


@torch.no_grad()
def _take_what_fits(model: WaveformModel, donor: WaveformModel, checkpoint: str, differ: str) -> None:
    given, needed = donor.state_dict(), model.state_dict()
    own_parts, donor_parts = _parts(model), _parts(donor)
    whole, in_part, fresh = [], [], []
    taken = 0
    for name, target in needed.items():
        source = given.get(name)
        parts = own_parts.get(name), donor_parts.get(name)
        if source is not None and source.shape == target.shape:
            target.copy_(source)
            whole.append(name)
            taken += target.numel()
        elif source is not None and all(parts):
            for own, given_one in zip(*parts, strict=True):
                into, out_of = own.of(target), given_one.of(source)
                common = tuple(slice(min(sizes)) for sizes in zip(into.shape, out_of.shape, strict=True))
                into[common] = out_of[common]
                taken += into[common].numel()
            in_part.append(name)
        else:
            fresh.append(name)
    read = _take_mel_readers(model, donor)
    in_part += read
    fresh = [name for name in fresh if name not in read]
    taken += sum(needed[name].numel() for name in read)
    total = sum(target.numel() for target in needed.values())
    if taken < total / 2:
        raise WavedistillError(
            differ + f"Only {taken:,} of {total:,} weights fit. Use a checkpoint of a more similar model."
        )
    logger.warning(
        "run.init_from %s is of another size: %d tensors taken whole, %d in part (%s), %d start fresh (%s); %.0f %% "
        "of the weights.",
        checkpoint,
        len(whole),
        len(in_part),
        ", ".join(in_part) or "none",
        len(fresh),
        ", ".join(fresh) or "none",
        100.0 * taken / total,
    )


@torch.no_grad()
def _take_mel_readers(model: WaveformModel, donor: WaveformModel) -> list[str]:
    """Let what reads a mel of the model's settings hear in it the donor's mel; the names of the weights that do."""
    ours, theirs = model.config.mel, donor.config.mel
    if ours is None or theirs is None or ours == theirs or ours.power != theirs.power:
        return []
    matrix, offset = mel_between(ours, theirs)
    matrix, offset = matrix.to(next(model.parameters())), offset.to(next(model.parameters()))
    readers = dict(model.named_modules())
    names = []
    for path, module in donor.named_modules():
        reader = readers.get(path)
        if not isinstance(module, MelEncoder | PitchPredictor) or reader is None or reader.mel_reader is None:
            continue
        source, target = module.mel_reader, reader.mel_reader
        if source is None or source.weight.shape[0] != target.weight.shape[0]:
            continue
        target.weight.copy_(torch.einsum("omk,mn->onk", source.weight, matrix))
        target.bias.copy_(source.bias + torch.einsum("omk,m->o", source.weight, offset / MEL_DEVIATION))
        names += [name for name, weight in model.named_parameters() if weight is target.weight]
    return names


class _Part(NamedTuple):
    """Rows of a tensor, and the shape in which they have what models of another size have fewer or more of as axes."""

    rows: slice
    shape: tuple[int, ...]

    def of(self, tensor: Tensor) -> Tensor:
        return tensor[self.rows].view(self.shape)


def _parts(model: nn.Module) -> dict[str, list[_Part]]:
    """The tensors that know the bands of a step, the layers of a stack or the steps of a linear path."""
    parts: dict[str, list[_Part]] = {}
    for path, network in model.named_modules():
        if not isinstance(network, CausalNetwork):
            continue
        bands = network.step_size
        stack = network.stack
        channels = stack.input.out_features
        whole = slice(None)
        parts[f"{path}.stack.input.weight"] = [
            _Part(whole, (channels, stack.input.in_features // bands, bands)),
        ]
        parameters = stack.output.out_features // bands
        parts[f"{path}.stack.output.weight"] = [_Part(whole, (bands, parameters, stack.output.in_features))]
        parts[f"{path}.stack.output.bias"] = [_Part(whole, (bands, parameters))]
        if stack.cond is not None:
            layers = stack.config.num_layers
            parts[f"{path}.stack.cond.weight"] = [_Part(whole, (layers, 2 * channels, stack.cond.in_features))]
        of_input, of_source = network.linear_order, network.source_order
        between = of_input * bands**2
        for name, width in (("taps.weight", (model.cond_channels,)), ("taps.bias", ()), ("constant_taps", ())):
            parts[f"{path}.{name}"] = [
                _Part(slice(between), (of_input, bands, bands, *width)),
                _Part(slice(between, None), (of_source, bands, bands, *width)),
            ]
    return parts


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
