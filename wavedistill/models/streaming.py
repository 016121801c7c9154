"""A stream's mel in pieces, its audio in chunks, and what a model is asked for in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from wavedistill.dsp.memory import Past
from wavedistill.dsp.window import Window
from wavedistill.errors import WavedistillError


class MelPiece(NamedTuple):
    """Further frames (1, n_mels, frames) of a mel, and whether they are its last; then there may be none."""

    frames: Tensor
    last: bool


class ContinuedMel:
    """A mel in pieces (1, n_mels, frames), continued on both sides by so many copies of its first and last frame."""

    def __init__(self, before: int, after: int) -> None:
        self.before = before
        self.after = after
        self.edge: Tensor | None = None  # the last frame so far

    def push(self, mel: Tensor, last: bool) -> Tensor:
        """The next piece with what stands beside it; the first has a frame or more."""
        parts = [mel[..., :1].expand(-1, -1, self.before), mel] if self.edge is None else [mel]
        # joined, not chosen by whether there are frames: a graph for any number of them would keep the choice
        self.edge = torch.cat([mel[..., :1] if self.edge is None else self.edge, mel], dim=-1)[..., -1:].clone()
        if last:
            parts.append(self.edge.expand(-1, -1, self.after))
        return torch.cat(parts, dim=-1)


class StreamRequest(NamedTuple):
    """What a stream is asked for.

    Attributes:
        pieces: of the mel; each is answered by the audio that it makes final.
        draw: the noise of so many further frames, (1, n, samples).
        speaker, temperature: as in `WaveformModel.sample`.
        low_latency: as in `WaveformModel.stream`.
    """

    pieces: Iterator[MelPiece]
    draw: Callable[[int], Tensor]
    speaker: Tensor | None
    temperature: float
    low_latency: bool

    def windows(self, frames: int) -> Iterator[Window]:
        """The pieces that become final, each with ``frames`` around it."""
        past = Past(2 * frames, axis=2)
        continued = ContinuedMel(frames, frames)
        for mel, last in self.pieces:
            yield Window(past.join(continued.push(mel, last)), frames, axis=2)


def mel_pieces(blocks: Iterator[Tensor], first: int, then: int) -> Iterator[MelPiece]:
    """Blocks (1, n_mels, frames) of a mel as one piece of ``first`` frames, further ones of ``then``, and the rest."""
    held = None
    wanted = first
    for block in blocks:
        held = block if held is None else torch.cat([held, block], dim=-1)
        while held.shape[-1] >= wanted:
            yield MelPiece(held[..., :wanted], False)
            held = held[..., wanted:]
            wanted = then
    if held is None:
        raise WavedistillError("the mel to stream holds no frames: give at least one block (n_mels, frames).")
    yield MelPiece(held, True)


def in_chunks(chunks: Iterator[Tensor], samples: int) -> Iterator[Tensor]:
    """Audio (1, 1, n) of any lengths in chunks of so many samples, the last one shorter."""
    held = None
    for chunk in chunks:
        held = chunk if held is None else torch.cat([held, chunk], dim=-1)
        while held.shape[-1] >= samples:
            yield held[..., :samples].clone()
            held = held[..., samples:]
    if held is not None and held.shape[-1]:
        yield held
