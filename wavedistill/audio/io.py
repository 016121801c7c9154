"""Read, write and resample audio files (soundfile for files, torchaudio for resampling)."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavedistill.audio.containers import decode_stream, ogg_is_cut, riff_is_cut, states_no_length
from wavedistill.errors import WavedistillError
from wavedistill.files import write_bytes

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SILENCE_PEAK = 1e-3  # -60 dBFS: below this peak a recording holds no speech
LOUDEST = 8.0
"""Float audio may be louder than full scale, by 18 dB at most; what is louder was never meant in [-1, 1]."""
_LARGEST_RATIO = 3000
_BLOCK = 1 << 18  # frames decoded at a time; mixing down per block keeps 192 kHz 8-channel files small
_FORMATS = {
    ".wav": ("WAV", None),
    ".flac": ("FLAC", None),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}


def load_audio(
    path: str | Path, sample_rate: int | None = None, *, max_seconds: float | None = None
) -> tuple[Tensor, int]:
    """Read an audio file (wav, flac, ogg, mp3; any bit depth), mixed down to mono.

    Args:
        path: the file.
        sample_rate: resample to this rate in Hz; None keeps the file's own.
        max_seconds: refuse longer files, by their header, before decoding anything.

    Returns:
        (audio, sample_rate): audio (samples,) float32, nominally in [-1, 1).

    Raises:
        WavedistillError: missing, empty, truncated, not audio, too long, with NaN or infinity, or of integers stored
            as floats.
    """
    path = Path(path)
    if not path.is_file():
        raise WavedistillError(f"{path}: {'is a folder, not an audio file' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise WavedistillError(f"{path}: the file is empty (0 bytes)")
    try:
        if states_no_length(path):
            audio, rate = decode_stream(path, max_seconds)
        else:
            audio, rate = _decode(path, max_seconds)
    except OSError as error:
        raise WavedistillError(f"{path}: cannot be read ({error.strerror or error})") from error
    if audio.size == 0:
        raise WavedistillError(f"{path}: no samples in the file")
    if not np.isfinite(audio).all():
        bad = int((~np.isfinite(audio)).sum())
        raise WavedistillError(f"{path}: {bad} samples are NaN or infinite")
    tensor = torch.from_numpy(audio)
    check_scale(tensor, str(path))
    if sample_rate is not None and sample_rate != rate:
        return resample(tensor, rate, sample_rate), sample_rate
    return tensor, rate


def _decode(path: Path, max_seconds: float | None) -> tuple[np.ndarray, int]:
    """Decode a file whose header states its length: audio (samples,) float32, mixed down, and its rate."""
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            expected = file.frames
            if max_seconds is not None and expected > max_seconds * rate:
                raise WavedistillError(
                    f"{path}: {expected / rate:.0f} s long, at most {max_seconds:g} s are "
                    "taken: cut it into shorter files"
                )
            if riff_is_cut(path):
                raise WavedistillError(f"{path}: truncated, its header announces more data than the file holds")
            if ogg_is_cut(path):
                raise WavedistillError(f"{path}: truncated, the stream's last page is missing")
            # Not file.blocks(): where a file ends early, it fills its blocks up with uninitialised memory.
            blocks = []
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block.mean(axis=1))
    except soundfile.LibsndfileError as error:
        raise WavedistillError(
            f"{path}: not readable as audio, or truncated ({_reason(error)}); wav, flac, ogg and mp3 are read"
        ) from error
    audio = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if audio.size < expected:
        raise WavedistillError(f"{path}: truncated, {audio.size} of {expected} samples could be decoded")
    return audio, rate


def check_scale(audio: Tensor, name: str) -> None:
    """Raise WavedistillError where float ``audio`` (samples,) cannot be meant in [-1, 1]: integers stored as floats."""
    peak = float(audio.abs().max()) if audio.numel() else 0.0
    if peak > LOUDEST:
        bits = next(bits for bits in (8, 16, 24, 32, 64) if peak <= 2.0 ** (bits - 1) or bits == 64)
        raise WavedistillError(
            f"{name}: its samples reach {peak:,.0f}, but audio lies in [-1, 1]. They look like {bits}-bit integers: "
            f"divide them by {2 ** (bits - 1)}"
        )


def check_audible(audio: Tensor, sample_rate: int, *, min_seconds: float, name: str) -> None:
    """Raise WavedistillError unless ``audio`` (samples,) lasts ``min_seconds`` and is more than silence."""
    seconds = audio.shape[-1] / sample_rate
    if seconds < min_seconds:
        raise WavedistillError(
            f"{name}: too short, {audio.shape[-1]} samples ({seconds:.3f} s), at least {min_seconds:g} s are needed"
        )
    peak = float(audio.abs().max())
    if peak < SILENCE_PEAK:
        raise WavedistillError(f"{name}: silent, its largest sample is {peak:.1e} of full scale")


def resample(audio: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Band-limited resampling of audio (..., samples) -> (..., ceil(samples * to_rate / from_rate)).

    Windowed sinc with a Kaiser window (torchaudio's "kaiser_best" setting), rates in Hz.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise WavedistillError(f"sample rates are positive numbers in Hz, given {from_rate} and {to_rate}")
    if from_rate == to_rate:
        return audio
    from torchaudio.functional import resample as torchaudio_resample

    # The filter bank has numerator * denominator taps: a rate like 191,999 Hz would need gigabytes. Rounding the
    # ratio shifts the pitch by less than 1e-5 then, and nothing for the usual rates.
    ratio = Fraction(to_rate, from_rate).limit_denominator(_LARGEST_RATIO)
    length = -(-audio.shape[-1] * to_rate // from_rate)
    out = torchaudio_resample(
        audio,
        ratio.denominator,
        ratio.numerator,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )
    return torch.nn.functional.pad(out, (0, length - out.shape[-1]))


def to_int16(audio: Tensor | np.ndarray) -> np.ndarray:
    """Audio in [-1, 1) -> int16 on the 16-bit grid (x * 32768, rounded); what lies outside is clipped."""
    array = audio.detach().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio)
    if array.dtype == np.int16:
        return array
    if not np.isfinite(array).all():
        raise WavedistillError("audio to write holds NaN or infinity")
    return np.clip(np.rint(array.astype(np.float64) * 32768.0), -32768, 32767).astype(np.int16)


def save_audio(path: str | Path, audio: Tensor | np.ndarray, sample_rate: int, subtype: str = "PCM_16") -> Path:
    """Write mono audio (samples,) or (1, samples) atomically; the suffix says wav, flac, ogg or mp3.

    ``subtype`` is soundfile's name of the sample format of wav and flac ("PCM_16", "PCM_24", "FLOAT");
    ogg and mp3 have one each and ignore it. Raises WavedistillError for another suffix, for NaN, and
    where the folder cannot be written.
    """
    import soundfile

    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise WavedistillError(
            f"{path}: audio is written as {', '.join(AUDIO_SUFFIXES)}; {path.suffix or 'no suffix'} was given"
        )
    format_name, fixed_subtype = _FORMATS[path.suffix.lower()]
    array = audio.detach().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1:
        raise WavedistillError(f"{path}: mono audio (samples,) is written, given shape {tuple(array.shape)}")
    # Quantising here, not in libsndfile, keeps int16 -> float -> int16 exact on every version of it.
    data = to_int16(array) if subtype == "PCM_16" else array
    if not np.isfinite(data).all():
        raise WavedistillError(f"{path}: audio to write holds NaN or infinity")
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, data, sample_rate, format=format_name, subtype=fixed_subtype or subtype)
    except (ValueError, soundfile.LibsndfileError) as error:
        raise WavedistillError(
            f"{path}: cannot be encoded as {subtype} at {sample_rate} Hz ({_reason(error)})"
        ) from error
    write_bytes(path, buffer.getvalue())
    return path


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return text.strip().rstrip(".").splitlines()[0] if text.strip() else type(error).__name__
