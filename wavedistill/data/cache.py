"""Frame-rate features of a split, computed once and kept beside the manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wavedistill.errors import WavedistillError
from wavedistill.files import atomic


def content_hash(*arrays: np.ndarray) -> str:
    """A hash of the contents themselves, so that a cache outlives copying and never outlives a change."""
    digest = hashlib.blake2b(digest_size=12)
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def cached_frames(
    folder: Path,
    name: str,
    key: object,
    num_frames: Sequence[int],
    width: int,
    features: Iterable[np.ndarray],
) -> np.ndarray:
    """(sum of num_frames, width) float32, read from ``folder``/.cache/<name>-<hash of key>.npy or computed into it.

    Args:
        key: what the features depend on; JSON-serialisable.
        num_frames: frames of each recording.
        features: lazily, for each recording, an array (frames, width) with at least its number of frames; what is
            beyond is dropped. What takes longer than two seconds shows its progress.
    """
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=8).hexdigest()
    path = folder / ".cache" / f"{name}-{digest}.npy"
    shape = (int(sum(num_frames)), width)
    with contextlib.suppress(OSError, ValueError):  # missing or damaged: compute it
        stored = np.load(path, mmap_mode="r")
        if stored.shape == shape:
            return stored
    items = tqdm(
        zip(features, num_frames, strict=True),
        desc=f"computing {name}",
        total=len(num_frames),
        unit="file",
        leave=False,
        delay=2.0,
        dynamic_ncols=True,
    )
    values = np.concatenate([np.zeros((0, width), np.float32), *(f[:n] for f, n in items)], dtype=np.float32)
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.save(file, values)
    except WavedistillError as error:
        warnings.warn(f"{error}; these features are computed again the next time", stacklevel=2)
        return values
    return np.load(path, mmap_mode="r")
