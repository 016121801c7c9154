"""Waves changed frame by frame of their short-time spectra, several times over, while they come in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wavedistill.dsp.mel_stft import MelSTFT
from wavedistill.dsp.memory import Queue

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(spectrum of some frames, what is known of each) -> (new spectrum, what the next stage is to know of each)."""


class IncomingFrames:
    """Samples that come in pieces, over which a frame is made as soon as those of it that are waited for are there.

    Args:
        stft: frames; ``reflect`` says what stands before the first sample and after the last.
        seen: samples of a frame that are waited for.

    Attributes:
        fresh: whether no frame has been made yet.
    """

    def __init__(self, stft: MelSTFT, seen: int) -> None:
        self.stft = stft
        self.seen = seen
        self.fresh = True
        self.held: Tensor | None = None  # samples that frames to come cover

    def push(self, wave: Tensor, last: bool) -> tuple[Tensor, int]:
        """Further samples (batch, n), the last ones or not -> all from the start of the first new frame on, what stands
        before and after the wave included, and how many frames are new. Without any: what is held.
        """
        stft = self.stft
        hop = stft.mel.hop_length
        fresh = self.fresh
        held = wave if self.held is None else torch.cat([self.held, wave], dim=1)
        count = (held.shape[1] + stft.left * fresh + stft.right * last - self.seen) // hop + 1
        if count < 1 or (fresh and not last and held.shape[1] <= stft.left):  # not one frame, or no start to mirror
            self.held = held
            return held, 0
        padded = held
        if fresh or last:
            ends = ([stft.before(held)] if fresh else []) + [held] + ([stft.after(held)] if last else [])
            padded = torch.cat(ends, dim=1)
        self.held = padded[:, count * hop :].clone()
        self.fresh = False
        return padded, count


class SpectralStage:
    """One way to the spectra and back; joined, the waves that come out are those of the whole.

    A sample is final when the last frame that covers it is, which is up to n_fft - 1 samples later.

    Args:
        stft: frames and windows.
        change: of the frames.
        add: return the wave plus the inverse transform of the changed spectrum, not the inverse transform alone.
    """

    def __init__(self, stft: MelSTFT, change: Change, add: bool) -> None:
        self.stft = stft
        self.change = change
        self.add = add
        self.known = Queue()  # of the frames to come
        self.incoming = IncomingFrames(stft, stft.mel.n_fft)
        self.tail: Tensor | None = None  # sums of the windows made over the samples held there
        self.before = stft.left  # samples over which windows are made that stand before the first of the wave
        self.frames = 0  # made so far, counted up to those that overlap
        self.weight = StageWeight(stft)

    def push(self, wave: Tensor, known: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """Further samples (batch, n) and what is known of further frames (batch, frames, values), the last ones or not
        -> the samples that have become final and what the next stage is to know of the frames that were made.
        """
        stft = self.stft
        hop, size = stft.mel.hop_length, stft.mel.n_fft
        self.known.put(known)
        padded, count = self.incoming.push(wave, last)
        if not count:
            return padded[:, :0], known[:, :0]
        spectrum, known = self.change(stft.spectrum(padded), self.known.take(count))
        sums = stft.overlapped(spectrum, self.tail)
        end = sums.shape[1] - (stft.right if last else size - hop)
        start = self.before if self.before <= end else end  # not min: a graph for any length would keep it
        self.before -= start
        weight = self.weight(self.frames, count, sums.dtype)[:, start:end]
        out = sums[:, start:end] / weight
        if self.add:
            out += padded[:, start:end]
        self.tail = sums[:, count * hop :].clone()
        self.frames = min(self.frames + count, -(-size // hop))
        return out, known


class StageWeight:
    """The sum of squared windows over the samples of new frames, kept for as long as it is asked for again."""

    def __init__(self, stft: MelSTFT) -> None:
        self.stft = stft
        self.key: tuple[int, int] | None = None
        self.value: Tensor | None = None

    def __call__(self, frames: int, count: int, dtype: torch.dtype) -> Tensor:
        """Of ``count`` new frames, and ``frames`` that overlap with them before."""
        if torch.compiler.is_compiling():  # a graph for any number of frames would keep the choice
            return self._computed(frames, count, dtype)
        if self.key != (frames, count):
            self.key = frames, count
            self.value = self._computed(frames, count, dtype)
        return self.value

    def _computed(self, frames: int, count: int, dtype: torch.dtype) -> Tensor:
        return self.stft.total_weight(frames + count, dtype)[:, frames * self.stft.mel.hop_length :]


class SpectralChain:
    """`SpectralStage` after `SpectralStage`, one for each of the changes."""

    def __init__(self, stft: MelSTFT, changes: Sequence[Change], add: bool = False) -> None:
        self.stages = [SpectralStage(stft, change, add) for change in changes]

    def push(self, wave: Tensor, known: Tensor, last: bool) -> Tensor:
        """As `SpectralStage.push`, from the first stage to the last."""
        for stage in self.stages:
            wave, known = stage.push(wave, known, last)
        return wave


def look_ahead(stft: MelSTFT, stages: int) -> int:
    """Samples by which so many stages wait for the wave before they give a whole frame of it."""
    hop, size = stft.mel.hop_length, stft.mel.n_fft
    samples = 0
    for _ in range(stages):
        last_frame = -(-(samples + stft.left) // hop) - 1  # the last that covers one of them
        samples = last_frame * hop - stft.left + size
    return samples
