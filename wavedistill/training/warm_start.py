"""Start a run from the weights of a checkpoint: of the same size, or of another."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError
from wavedistill.models.base import WaveformModel
from wavedistill.nn.causal_network import CausalNetwork

logger = logging.getLogger(__name__)


def load_weights(model: WaveformModel, checkpoint: str, resize: bool = False) -> None:
    """Give a model the weights of a checkpoint (``run.init_from``, ``run.init_resize``).

    Args:
        model: a fresh one; keeps what it does not get.
        resize: take what fits of a model of another size: tensors of the same size whole, and of the networks that read
            and make the bands of a step (``front.bands``) the bands that both have, the lowest ones. What was taken in
            part and what was not is logged.

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
    own_axes, donor_axes = _band_axes(model), _band_axes(donor)
    whole, in_part, fresh = [], [], []
    taken = 0
    for name, target in needed.items():
        source = given.get(name)
        views = [axes.get(name, ()) for axes in (own_axes, donor_axes)]
        if source is not None and source.shape == target.shape:
            target.copy_(source)
            whole.append(name)
            taken += target.numel()
        elif source is not None and all(views):
            into, out_of = target.view(views[0]), source.reshape(views[1])
            common = tuple(slice(min(sizes)) for sizes in zip(into.shape, out_of.shape, strict=True))
            into[common] = out_of[common]
            in_part.append(name)
            taken += into[common].numel()
        else:
            fresh.append(name)
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


def _band_axes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes in which the tensors that know a step's bands have the bands as axes of their own."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, network in model.named_modules():
        if not isinstance(network, CausalNetwork):
            continue
        bands = network.step_size
        channels = network.stack.input.out_features
        shapes[f"{path}.stack.input.weight"] = (channels, -1, bands)
        shapes[f"{path}.stack.output.weight"] = (bands, -1, network.stack.output.in_features)
        shapes[f"{path}.stack.output.bias"] = (bands, -1)
        shapes[f"{path}.taps.weight"] = (-1, bands, bands, model.cond_channels)
        shapes[f"{path}.taps.bias"] = (-1, bands, bands)
        shapes[f"{path}.constant_taps"] = (-1, bands, bands)
    return shapes


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
