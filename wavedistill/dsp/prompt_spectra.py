"""What `wavedistill.dsp.spectral_stream` does, with a look-ahead that does not grow with the number of stages.

In a chain of stages, each waits for the frames that overlap with its own. Here a frame passes all stages as soon as its
samples are there, and at each of them sees what the frames up to it have made so far, as in the real-time iterations of
the reference. A frame's last samples, fewer than a hop and nearly outside its window, are not waited for, and a sample
is final when the frame that begins to cover the hop after it is made; that frame fades in.

References:
    Real-Time Signal Estimation from Modified Short-Time Fourier Transform Magnitude Spectra (Zhu, Beauregard & Wyse,
        2007): frames that see what the earlier ones have become
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavedistill.dsp.mel_stft import MelSTFT
from wavedistill.dsp.memory import Past, Queue
from wavedistill.dsp.spectral_stream import Change, IncomingFrames
from wavedistill.kernels.operators import computes_at_once
from wavedistill.kernels.overlap import overlap_earlier


class PromptChain:
    """Stages that a frame passes at once; `push` as that of `wavedistill.dsp.spectral_stream.SpectralChain`.

    Joined, the waves that come out are the same for any pieces, and nearly those of the chain that waits.

    Args:
        stft, changes, add: as there.
    """

    def __init__(self, stft: MelSTFT, changes: Sequence[Change], add: bool = False) -> None:
        size, hop = stft.mel.n_fft, stft.mel.hop_length
        self.stft = stft
        self.changes = changes
        self.add = add
        self.seen = stft.left + waited_hops(stft) * hop  # samples of a frame that are waited for
        self.earlier = -(-size // hop) - 1  # frames that overlap with one before it
        self.pasts = [Past(max(self.earlier, 1)) for _ in changes[1:]]
        windows = stft.window.square().expand(1, self.earlier + 1, -1)
        self.weight = self._of_frame_and_earlier(windows).clamp_min(1e-3)  # of a frame's samples
        self.fade = _fade_in(max(stft.left - hop, 0), hop, size)
        self.known = Queue()  # of the frames to come
        self.wave = Queue()  # samples that are not final
        self.incoming = IncomingFrames(stft, self.seen)
        self.sums: Tensor | None = None  # of faded frames, and of their windows, from the first sample not final on
        self.before = stft.left  # samples in the sums that stand before the first of the wave

    def push(self, wave: Tensor, known: Tensor, last: bool) -> Tensor:
        self.known.put(known)
        if self.add:
            self.wave.put(wave)
        padded, count = self.incoming.push(wave, last)
        if not count:
            return self._final(None, last) if last and not self.incoming.fresh else wave[:, :0]
        frames = padded.unfold(1, self.seen, self.stft.mel.hop_length)[:, :count].contiguous()
        return self._final(self._made(frames, self.known.take(count)), last)

    def _made(self, base: Tensor, known: Tensor) -> Tensor:
        """The windowed frames (batch, frames, n_fft) of the last stage; ``base``: the wave's samples in each frame."""
        stft = self.stft
        window = stft.window.to(base.dtype)
        weight = self.weight.to(base)
        segments = base * window[: self.seen]
        made = None
        for index, change in enumerate(self.changes):
            if index:
                past = self.pasts[index - 1]
                if past.value is None:
                    past.value = made.new_zeros(made.shape[0], self.earlier, made.shape[2])
                seen = past.join(made)
                if computes_at_once(seen):
                    segments = overlap_earlier(seen, weight, window, stft.mel.hop_length, base if self.add else None)
                else:
                    segments = self._of_frame_and_earlier(seen) / weight
                    segments = (base + segments if self.add else segments) * window[: self.seen]
            spectrum, known = change(torch.fft.rfft(segments, n=stft.mel.n_fft), known)
            frames = stft.frames(spectrum)
            made = frames if made is None or not self.add else made + frames
        return made

    def _of_frame_and_earlier(self, frames: Tensor) -> Tensor:
        """The sum of each frame but the `earlier` first and of those before it, over its first `seen` samples."""
        hop = self.stft.mel.hop_length
        count = frames.shape[1] - self.earlier
        total = frames[:, self.earlier :, : self.seen].clone()
        for age in range(1, self.earlier + 1):
            part = frames[:, self.earlier - age :, age * hop :][:, :count, : self.seen]
            total[..., : part.shape[-1]] += part
        return total

    def _final(self, made: Tensor | None, last: bool) -> Tensor:
        """The samples that further frames make final; the last are so without any."""
        stft = self.stft
        sums = self.sums if made is None else self._summed(made)
        # the last frame that was made begins n_fft samples before the end
        following = max(stft.left, stft.mel.hop_length)  # first sample of it that the next one reaches
        end = sums.shape[1] - (stft.right if last else stft.mel.n_fft - following)
        self.sums = sums[:, end:].clone()
        ready = sums[:, min(self.before, end) : end]
        self.before -= min(self.before, end)
        out = ready[:-1] / ready[-1:].clamp_min(1e-3)
        return out + self.wave.take(out.shape[1]) if self.add else out

    def _summed(self, made: Tensor) -> Tensor:
        """The sums with further frames in them, and in the last row those of their windows."""
        stft = self.stft
        hop = stft.mel.hop_length
        fade = self.fade.to(made)
        weight = (fade * stft.window.to(made).square()).expand(1, made.shape[1], -1)
        sums = stft.overlap_add(torch.cat([made * fade, weight]))
        if self.sums is not None:
            # the new frames begin so many samples later, or before by no more than they are silent at first
            start = self.sums.shape[1] - (stft.mel.n_fft - hop)
            sums = nn.functional.pad(sums, (start, 0))
            sums[:, : self.sums.shape[1]] += self.sums
        return sums


def waited_hops(stft: MelSTFT) -> int:
    """Whole hops from the first of a frame's own on that its window covers."""
    return (stft.mel.n_fft - stft.left) // stft.mel.hop_length


def look_ahead(stft: MelSTFT) -> int:
    """Samples by which a `PromptChain` waits for the wave before it gives a whole frame of it."""
    return waited_hops(stft) * stft.mel.hop_length


def _fade_in(start: int, length: int, size: int) -> Tensor:
    """0 up to ``start``, then within ``length`` samples up to 1, and so to the end."""
    rise = (torch.arange(size) + 0.5 - start) / length
    return torch.sin(0.5 * math.pi * rise.clamp(0.0, 1.0)).square()
