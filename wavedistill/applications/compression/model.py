"""The codec's checkpoint: the network's weights, their fingerprint, and a known answer that proves this machine right.

codec.json           {"format": 1, "known_answer": CRC of a fixed signal's code, as 8 hexadecimal digits}
model.safetensors    the weights, float32, by the names of `NETWORK`
README.md            the card
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from wavedistill.applications.compression.chunk import encode_chunk
from wavedistill.applications.compression.network import NETWORK
from wavedistill.assets import find_checkpoint_root
from wavedistill.errors import WavedistillError
from wavedistill.files import atomic, read_json, write_json

BUNDLED = "codec"
FORMAT = 1
CONFIG_FILE = "codec.json"
WEIGHTS_FILE = "model.safetensors"
FINGERPRINT_BYTES = 8


@dataclass(frozen=True)
class Codec:
    """Weights to code with.

    Attributes:
        network: (1,) of `NETWORK`.
        fingerprint: of the weights and of the arithmetic, `FINGERPRINT_BYTES` long; containers carry it.
    """

    network: np.ndarray
    fingerprint: bytes


@functools.cache
def load_codec(folder: str | Path | None = None) -> Codec:
    """The bundled codec, or that of a checkpoint folder; this machine has to give its known answer.

    Raises:
        WavedistillError: no such checkpoint, weights of another shape, or arithmetic that gives other bits here.
    """
    folder = Path(folder) if folder is not None else find_checkpoint_root() / BUNDLED
    if not (folder / CONFIG_FILE).is_file():
        raise WavedistillError(f"{folder} holds no codec: a folder with {CONFIG_FILE} and {WEIGHTS_FILE} is needed")
    config = read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict) or config.get("format") != FORMAT or not _is_crc(config.get("known_answer")):
        raise WavedistillError(f"{folder / CONFIG_FILE}: this version reads codecs of format {FORMAT}")
    network = _read_weights(folder / WEIGHTS_FILE)
    found = known_answer(network)
    if found != config["known_answer"]:
        raise WavedistillError(
            f"this machine's arithmetic gives {found} for the codec's test signal, not {config['known_answer']}: files "
            "would not decode elsewhere\nremove the compiled code (the __pycache__ folder of wavedistill/applications/"
            "compression) and try again; if that does not help, report the versions of numba and constriction"
        )
    return Codec(network, fingerprint(network, found))


def save_codec(network: np.ndarray, folder: str | Path) -> Path:
    """Write weights (1,) of `NETWORK` as a checkpoint folder, with their known answer."""
    folder = Path(folder)
    tensors = {name: np.ascontiguousarray(network[name][0]) for name in NETWORK.names}
    with atomic(folder / WEIGHTS_FILE) as temporary:
        safetensors.numpy.save_file(tensors, temporary)
        temporary.chmod(0o644)
    write_json(folder / CONFIG_FILE, {"format": FORMAT, "known_answer": known_answer(network)})
    return folder


def known_answer(network: np.ndarray) -> str:
    """CRC of the code of a fixed stereo signal, as 8 hexadecimal digits: what every machine must find."""
    state = 1
    past = [0, 0]
    samples = []
    for t in range(700):
        frame = []
        for c in range(2):
            state = (state * 1103515245 + 12345) % (1 << 31)
            loudness = 5 + (t // 100) % 3 * 4
            value = (15 * past[c] + 5 * past[1 - c]) // 24 + (state >> 8) % (1 << loudness) - (1 << (loudness - 1))
            frame.append(max(-32768, min(32767, value)))
        past = frame
        samples.append(frame)
    return f"{zlib.crc32(encode_chunk(np.array(samples, np.int64), 16, network)):08x}"


def fingerprint(network: np.ndarray, answer: str) -> bytes:
    """Digest of weights and known answer: another one means other code."""
    digest = hashlib.blake2b(answer.encode(), digest_size=FINGERPRINT_BYTES)
    for name in NETWORK.names:
        digest.update(network[name][0].astype("<f4").tobytes())
    return digest.digest()


def _read_weights(path: Path) -> np.ndarray:
    try:
        tensors = safetensors.numpy.load_file(path)
    except (OSError, SafetensorError) as error:
        raise WavedistillError(f"cannot read {path}: {error}") from error
    network = np.zeros(1, NETWORK)
    expected = {name: network[name][0].shape for name in NETWORK.names}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != expected:
        raise WavedistillError(f"{path}: weights of shapes {expected} are needed, not {found}")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise WavedistillError(f"{path}: {name} is not all finite float32")
        network[name][0] = tensor
    return network


def _is_crc(value: object) -> bool:
    return isinstance(value, str) and len(value) == 8
