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

    def extended(self, before: int, after: int) -> Iterator[MelPiece]:
        """The pieces of the mel continued on both sides by so many copies of its first and last frame."""
        edge = None
        for mel, last in self.pieces:
            parts = [mel[..., :1].expand(-1, -1, before), mel] if edge is None else [mel]
            edge = mel[..., -1:].clone() if mel.shape[-1] else edge
            if last:
                parts.append(edge.expand(-1, -1, after))
            yield MelPiece(torch.cat(parts, dim=-1), last)

    def windows(self, frames: int) -> Iterator[Window]:
        """The pieces that become final, each with ``frames`` around it."""
        past = Past(2 * frames, axis=2)
        for mel, _ in self.extended(frames, frames):
            yield Window(past.join(mel), frames, axis=2)


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
