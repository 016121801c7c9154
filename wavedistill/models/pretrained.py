"""Checkpoint folders: save a model for use, load one by folder, run folder, bundled name or hub id.

A checkpoint is a folder to *use* (a training state, to resume, is another thing: ``training/checkpoint.py``):

    config.json          {"format": 1, "model_type": "wavenet" | "parallel_wavenet" | "waveform_flow", "config": {...},
                         "weights_sha256": "..."}
    model.safetensors    every tensor of the model, by its ``state_dict`` name
    README.md            the model card

Loading runs no code from the folder, refuses weights of another hash than config.json names (where it names one), and
refuses any missing, extra or wrongly shaped tensor by name.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from wavedistill.assets import bundled_checkpoints, find_checkpoint_root
from wavedistill.config import from_dict, to_dict
from wavedistill.errors import WavedistillError
from wavedistill.files import atomic, read_json, remove_leftovers, write_json, write_text
from wavedistill.models.base import WaveformModel
from wavedistill.models.configs import ParallelWaveNetConfig, WaveformFlowConfig, WaveNetConfig, least_weights
from wavedistill.models.parallel_wavenet import ParallelWaveNet
from wavedistill.models.waveform_flow import WaveformFlow
from wavedistill.models.wavenet import WaveNet

FORMAT = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
WEIGHTS_HASH = "weights_sha256"
"""Key of config.json: SHA-256 of the file of weights, in hex."""
_MODELS = {
    WaveNet.model_type: (WaveNet, WaveNetConfig),
    ParallelWaveNet.model_type: (ParallelWaveNet, ParallelWaveNetConfig),
    WaveformFlow.model_type: (WaveformFlow, WaveformFlowConfig),
}

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def model_type(model: nn.Module) -> str:
    """``"wavenet"`` (teacher), ``"parallel_wavenet"`` (student) or ``"waveform_flow"`` (one-stage flow)."""
    if isinstance(model, WaveformModel):
        return model.model_type
    raise WavedistillError(
        f"a {type(model).__name__} is no model to save: give a WaveNet, a ParallelWaveNet or a WaveformFlow"
    )


def title(model: WaveformModel) -> str:
    """What the model is, for people: ``"WaveNet (teacher)"``."""
    return f"{model.architecture} ({model.role_name})"


def save_pretrained(
    model: WaveformModel,
    folder: str | Path,
    *,
    card: str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write ``model`` as a checkpoint folder and return it.

    Every file is written beside its final name and then renamed over it, so a reader sees whole files only, and
    other files in the folder (``samples/``) stay. The hash of the weights is written after the weights, so that a
    process killed in between leaves a checkpoint that loads.

    Args:
        model: the model, on any device; its weights are stored as they are (give the EMA copy, not the raw one).
        folder: made if it is missing.
        card: text of the model card (Markdown); a short generated one by default.
        dtype: stored type of the parameters, for example ``torch.float16`` to halve the file; buffers keep theirs.
            Loading gives float32 again.
    """
    folder = Path(folder)
    kind = model_type(model)
    parameters = {name for name, _ in model.named_parameters()}
    tensors = {
        # clone: safetensors refuses tensors that share memory
        name: value.detach().to("cpu", dtype if dtype and name in parameters else value.dtype).clone().contiguous()
        for name, value in model.state_dict().items()
    }
    config = {"format": FORMAT, "model_type": kind, "config": to_dict(model.config)}
    try:
        remove_leftovers(folder, WEIGHTS_FILE)
        with atomic(folder / WEIGHTS_FILE) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt"})
            os.chmod(temporary, 0o644)  # safetensors makes files private
            digest = _sha256(temporary)
            write_json(folder / CONFIG_FILE, config)  # no hash yet: the weights there may be those of an earlier save
        write_json(folder / CONFIG_FILE, config | {WEIGHTS_HASH: digest})
        write_text(folder / CARD_FILE, card if card is not None else default_card(model, folder.name))
    except SafetensorError as error:
        raise WavedistillError(f"cannot write the checkpoint {folder}: {error}") from error
    return folder


def default_card(model: WaveformModel, name: str) -> str:
    """A minimal model card: what the model is, its size, and how to use it."""
    size = sum(p.numel() for p in model.parameters())
    return (
        f"# {name}\n\n{title(model)}, {size / 1e6:.2f} M parameters, {model.sample_rate} Hz. Made with wavedistill.\n\n"
        "```python\nfrom wavedistill import Vocoder\n\n"
        f'vocoder = Vocoder.from_pretrained("path/to/{name}")\n```\n'
    )


def resolve_checkpoint(name: str | Path) -> Path:
    """The checkpoint folder that ``name`` means.

    Tried in this order: a checkpoint folder; a run folder (its ``checkpoint/``); a bundled name; a Hugging Face hub id
    ``owner/name`` or ``owner/name@revision`` (a branch, a tag or a commit; a commit never changes). Only the last
    touches the network, and only for a name that no local file explains.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        for folder in (path, path / "checkpoint"):
            if (folder / CONFIG_FILE).is_file():
                return folder
    if str(name) in bundled_checkpoints():
        return find_checkpoint_root() / str(name)
    known = f"bundled: {', '.join(bundled_checkpoints()) or 'none'}"
    if path.is_dir():
        if (path / "config.yaml").is_file():
            raise WavedistillError(
                f"the run {path} has written no checkpoint yet: wait for its first save, or resume it"
            )
        raise WavedistillError(f"the folder {path} holds no {CONFIG_FILE}: give a checkpoint or run folder ({known})")
    if path.is_file():
        raise WavedistillError(f"{path} is a file: give the checkpoint's folder ({known})")
    owner_and_name = str(name).split("/")
    # "runs/mistyped" beside an existing runs/ is a mistyped path, not a question for the network
    if (
        len(owner_and_name) == 2
        and all(owner_and_name)
        and owner_and_name[0] not in (".", "..", "~")
        and not path.parent.is_dir()
    ):
        return _download(str(name), known)
    raise WavedistillError(f"there is no checkpoint {str(name)!r}: give a folder, a run folder or a name ({known})")


def _download(name: str, known: str) -> Path:
    """The folder in the hub's cache; of the repository only what a checkpoint consists of is fetched: no pickles."""
    from huggingface_hub import snapshot_download

    hub_id, _, revision = name.partition("@")
    files = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
    try:
        return Path(snapshot_download(hub_id, revision=revision or None, allow_patterns=files, etag_timeout=10))
    except Exception as error:  # the hub's client raises many types; each means: not to be had
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WavedistillError(
            f"there is no folder {name}, and the hub gave no model of that name ({reason})\n"
            f"give a folder, a run folder or a name ({known})"
        ) from error


def load_pretrained(name: str | Path, device: str | torch.device = "cpu") -> WaveformModel:
    """Load the model of a checkpoint: ``name`` as in `resolve_checkpoint`. In eval mode, float32, on ``device``."""
    folder = resolve_checkpoint(name)
    stored = read_config(folder / CONFIG_FILE)
    tensors = _read_weights(folder / WEIGHTS_FILE, stored.get(WEIGHTS_HASH))
    model = _build(stored, folder / CONFIG_FILE, tensors)
    _check_tensors(model, tensors, folder / WEIGHTS_FILE)
    model.load_state_dict(tensors)
    return model.to(device).eval()


def fingerprint(model: WaveformModel) -> str:
    """16 hex digits that change with the configuration and with every weight: names the results of this model."""
    digest = hashlib.sha256(json.dumps([model_type(model), to_dict(model.config)], sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def read_config(path: Path) -> dict:
    """What a checkpoint's config.json holds, of a known format and model; its "config" is not checked yet."""
    content = read_json(path)
    keys = {"format", "model_type", "config"}
    if not isinstance(content, dict) or not keys <= content.keys() or not isinstance(content["config"], dict):
        raise WavedistillError(f"{path} is no wavedistill checkpoint: it needs 'format', 'model_type' and 'config'")
    if content["format"] != FORMAT:
        raise WavedistillError(
            f"{path} has format {content['format']!r}, this version reads {FORMAT}: pip install --upgrade wavedistill"
        )
    if content["model_type"] not in list(_MODELS):  # the list takes what cannot be hashed
        raise WavedistillError(f"{path}: unknown model_type {content['model_type']!r}, known: {', '.join(_MODELS)}")
    return content


def _build(stored: dict, path: Path, tensors: dict[str, torch.Tensor]) -> WaveformModel:
    """The model of a configuration, unless its weights cannot be these ``tensors``: then it might fill all memory."""
    cls, config_cls = _MODELS[stored["model_type"]]
    config = from_dict(config_cls, stored["config"], where=str(path))
    given = sum(tensor.numel() for tensor in tensors.values())
    if (needed := least_weights(config)) > given:
        raise WavedistillError(f"{path} is of a model of {needed:,} weights or more; {WEIGHTS_FILE} holds {given:,}")
    return cls(config)


def _read_weights(path: Path, expected_hash: str | None) -> dict[str, torch.Tensor]:
    """The tensors of a file whose hash is the expected one; None (an older checkpoint): of any."""
    if not path.is_file():
        raise WavedistillError(f"the checkpoint {path.parent} has no {path.name}: copy it there, or save it again")
    try:
        if expected_hash is not None and (found := _sha256(path)) != expected_hash:
            raise WavedistillError(
                f"{path} is not the file that {CONFIG_FILE} names: its SHA-256 is {found[:16]}..., not "
                f"{str(expected_hash)[:16]}...\nit is broken, incomplete or replaced: copy the whole checkpoint again"
            )
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise WavedistillError(f"{path} cannot be read ({error}): it is broken or incomplete, copy it again") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_tensors(model: nn.Module, tensors: dict[str, torch.Tensor], where: Path) -> None:
    expected = model.state_dict()
    problems = [f"missing tensor {name}" for name in expected if name not in tensors]
    problems += [f"unknown tensor {name}" for name in tensors if name not in expected]
    problems += [
        f"tensor {name} has shape {tuple(tensors[name].shape)}, needed {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    problems += [
        f"tensor {name} is of type {str(tensors[name].dtype).removeprefix('torch.')}, needed float16 to float64"
        for name, value in expected.items()
        if name in tensors and value.is_floating_point() and tensors[name].dtype not in _FLOATS
    ]
    problems += [
        f"tensor {name} holds values that are not finite"
        for name, value in tensors.items()
        if value.dtype in _FLOATS and not torch.isfinite(value).all()
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WavedistillError(f"{where} does not fit its {CONFIG_FILE}: {problems[0]}{more}")
