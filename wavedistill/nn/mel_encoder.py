"""From a log-mel spectrogram and a speaker to the features that condition every layer."""

from __future__ import annotations

from torch import Tensor, nn

from wavedistill.dsp.memory import Past
from wavedistill.nn.frame_conv import convolve

MEL_MEAN = -5.0
MEL_DEVIATION = 2.5
"""Of natural-log mels of speech at usual levels, about."""


class MelEncoder(nn.Module):
    """Convolutions over frames, then nearest upsampling to blocks and one more convolution.

    Nearest upsampling followed by a convolution leaves no checkerboard, which transposed convolutions do. The mel is
    continued by repeating its first and last frame, so that padding a batch the same way changes nothing.

    Args:
        n_mels: bands of the log-mel spectrogram (0: no mel).
        num_speakers: size of the speaker table (0: no speaker).
        channels: width.
        upsample: blocks per frame.

    Shapes:
        mel (batch, n_mels, frames), speaker (batch,) indices or (batch, num_speakers) weights, which mix the speakers'
        vectors -> (batch, frames * upsample, channels); without a mel (batch, 1, channels).
    """

    context_frames = 3
    """Look-ahead and look-back in frames."""

    def __init__(self, n_mels: int, num_speakers: int, channels: int, upsample: int) -> None:
        super().__init__()
        self.upsample = upsample
        self.speaker = nn.Embedding(num_speakers, channels) if num_speakers else None
        if n_mels:
            self.frames = nn.ModuleList([nn.Conv1d(n_mels, channels, 3), nn.Conv1d(channels, channels, 3)])
            self.blocks = nn.Conv1d(channels, channels, 3)
        else:
            self.frames = None

    @property
    def mel_reader(self) -> nn.Conv1d | None:
        """The layer that reads the mel, if there is one."""
        return None if self.frames is None else self.frames[0]

    def forward(self, mel: Tensor | None, speaker: Tensor | None = None) -> Tensor:
        if self.frames is None:
            return self._table(speaker).transpose(1, 2)
        return self.step(extended(mel, self.context_frames), speaker, self.stream_state())

    def stream_state(self) -> list[Past]:
        """What a stream remembers, before its first frame."""
        return [Past(2, axis=2) for _ in range(len(self.frames) + 1)]

    def step(self, mel: Tensor, speaker: Tensor | None, state: list[Past]) -> Tensor:
        """Features of the frames that further ones make final: each needs `context_frames` on either side."""
        table = self._table(speaker)
        hidden = normalized(mel)
        *before_frames, before_blocks = state
        for conv, past in zip(self.frames, before_frames, strict=True):
            hidden = nn.functional.leaky_relu(convolve(conv, past.join(hidden)) + table, 0.2)
        blocks = before_blocks.join(hidden).repeat_interleave(self.upsample, dim=-1)
        edge = self.upsample - 1  # of the frames on either side one block is seen
        blocks = blocks[..., edge : blocks.shape[-1] - edge]
        return nn.functional.leaky_relu(convolve(self.blocks, blocks), 0.2).transpose(1, 2)

    def _table(self, speaker: Tensor | None) -> Tensor | float:
        """The speaker's share, (batch, channels, 1): of an index, or of weights that mix speakers."""
        if self.speaker is None:
            return 0.0
        mixed = speaker.is_floating_point()
        return (speaker @ self.speaker.weight if mixed else self.speaker(speaker)).unsqueeze(-1)


def extended(mel: Tensor, frames: int) -> Tensor:
    """The mel continued on both sides by ``frames`` copies of its edge frames."""
    return nn.functional.pad(mel, (frames, frames), mode="replicate")


def normalized(mel: Tensor) -> Tensor:
    """Natural-log mels of speech at usual levels, brought to about zero mean and unit deviation."""
    return (mel - MEL_MEAN) / MEL_DEVIATION
