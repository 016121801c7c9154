"""`wavedistill morph`: from one sound to another through a model's noise.

A Gaussian teacher and a one-stage flow are bijections between waveform and noise, given a condition. Both sounds are
encoded exactly; between them, frame after frame of `hop_length` values,

    z = |z| (sin((1 - t) w) / sin w * za / |za| + sin(t w) / sin w * zb / |zb|),    |z|^2 = (1 - t) |za|^2 + t |zb|^2

where w is the angle between za and zb. So the norm is kept, at which nearly all of the noise's probability lies; on a
straight line it would be smaller by up to a third. The log-mel condition goes in a straight line. Speech is aligned
first, by dynamic time warping of the mels: frame i of the one and j of the other are heard at (1 - t) i + t j. So t = 0
and t = 1 are the sounds themselves.

References:
    Animating Rotation with Quaternion Curves (Shoemake, 1985): spherical interpolation
    Sampling Generative Networks (White, 2016), https://arxiv.org/abs/1609.04468
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavedistill.applications.sounds import Sound, load_sound, made_before
from wavedistill.audio.io import save_audio
from wavedistill.audio.plot import plot_mels
from wavedistill.errors import WavedistillError
from wavedistill.evaluation.systems import Clip, LoadedModel, digest
from wavedistill.files import read_json, write_json
from wavedistill.notes.play import plays_notes
from wavedistill.notes.template import note_template

PAUSE_SECONDS = 0.2
"""Between the steps of the joined file."""
_VERSION = "1"  # of what is written: a folder of another version is made again


@dataclass(frozen=True)
class MorphConfig:
    """How to go from one sound to the other.

    Attributes:
        steps: sounds, the two ends included, at least 2.
        speakers: of the two ends, by name, for a model with speakers.
        pitches: MIDI numbers of the two ends, for a model of notes: its condition is the mel of their template.
        velocity: how hard the notes were struck, 1 to 127.
    """

    steps: int = 5
    speakers: tuple[str, str] | None = None
    pitches: tuple[float, float] | None = None
    velocity: int = 96

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise WavedistillError(f"a morph has 2 steps or more, given {self.steps}")


class Morph(NamedTuple):
    """What `morph_sounds` makes.

    Attributes:
        waves: one a step, (samples,) each; the first and the last are the two sounds.
        errors: largest difference of these two from what was given.
        norms: root mean square of the noise of each step, 1 for noise of the model's own.
    """

    waves: list[Tensor]
    errors: tuple[float, float]
    norms: list[float]


class _Encoded(NamedTuple):
    """A sound as its noise (frames, hop_length) given the mel (1, n_mels, frames) and weights of speakers, float64."""

    noise: Tensor
    mel: Tensor
    speaker: Tensor | None


def morph(
    a: str | Path,
    b: str | Path,
    checkpoint: str | Path | LoadedModel,
    out: str | Path,
    config: MorphConfig | None = None,
    *,
    device: str = "cpu",
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, Any]:
    """Morph a file into another: step-00.wav and so on, joined.wav, morph.png and, last, morph.json.

    Args:
        a, b: audio files; another rate is resampled, what is left over after whole frames is cut.
        checkpoint: folder, run folder, bundled name or hub id of a Gaussian teacher or a one-stage flow.
        out: the folder; one that holds this very morph already is left as it is.
        config: steps and conditions; None: `MorphConfig()`.
        device: where the model runs; of a loaded one its own.
        progress: wraps the iterable of the steps, those of one length together; tqdm for example.

    Returns:
        what morph.json holds: ``steps``, the two ends' ``errors``, ``norms``.

    Raises:
        WavedistillError: a student or a teacher that is not Gaussian, or conditions that the model does not take.
    """
    config = config or MorphConfig()
    out = Path(out)
    loaded = LoadedModel.of(checkpoint, device)
    clips = [load_sound(Sound(Path(path).stem, Path(path)), loaded)[0] for path in (a, b)]
    key = digest(*(clip.key for clip in clips), loaded.key, str(config), _VERSION)
    if (stored := made_before(out / "morph.json", key)) is not None:
        return stored
    made = morph_sounds(clips[0].audio, clips[1].audio, loaded, config, progress=progress)
    rate = loaded.model.sample_rate
    pause = torch.zeros(round(PAUSE_SECONDS * rate))
    joined = [piece for wave in made.waves for piece in (wave, pause)][:-1]
    written = {save_audio(out / f"step-{number:02d}.wav", wave, rate) for number, wave in enumerate(made.waves)}
    for left in {*out.glob("step-*.wav")} - written:  # of a morph with more steps
        left.unlink()
    save_audio(out / "joined.wav", torch.cat(joined), rate)
    titles = [clips[0].id, *(f"step {n}" for n in range(1, config.steps - 1)), clips[1].id]
    mels = {f"{n:02d} {t}": loaded.front_end(w) for n, (t, w) in enumerate(zip(titles, made.waves, strict=True))}
    plot_mels(mels, out / "morph.png", loaded.model.hop_length, rate)
    found = {"key": key, "steps": config.steps, "errors": list(made.errors), "norms": made.norms}
    write_json(out / "morph.json", found | {"config": asdict(config)})
    return read_json(out / "morph.json")


@torch.inference_mode()
def morph_sounds(
    a: Tensor,
    b: Tensor,
    loaded: LoadedModel,
    config: MorphConfig | None = None,
    *,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Morph:
    """The steps between two sounds (samples,) at the model's rate, whole frames each.

    All is computed in float64: an autoregressive decoder feeds its rounding back, and in float32 the ends of a note
    came out wrong by up to 0.05 of full scale.
    """
    config = config or MorphConfig()
    _check(loaded, config)
    exact = LoadedModel(loaded.name, loaded.key, copy.deepcopy(loaded.model).double())
    ends = [_end(audio, exact, config, which) for which, audio in enumerate((a, b))]
    path = None if config.pitches else align(ends[0].mel[0], ends[1].mel[0])
    steps = [_between(ends, path, step / (config.steps - 1), exact, config) for step in range(config.steps)]
    waves: list[Tensor] = [torch.empty(0)] * len(steps)
    for members in progress(_of_one_length(steps)):
        made = exact.model.sample(
            torch.cat([steps[n].mel for n in members]),
            noise=torch.stack([steps[n].noise.reshape(1, -1) for n in members]),
            speaker=None if config.speakers is None else torch.cat([steps[n].speaker for n in members]),
        )
        for n, wave in zip(members, made, strict=True):
            waves[n] = wave[0].float().cpu()
    errors = tuple(float((wave - audio).abs().max()) for wave, audio in ((waves[0], a), (waves[-1], b)))
    return Morph(waves, errors, [float(step.noise.square().mean().sqrt()) for step in steps])


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation of vectors (..., dim), and linear interpolation of their squared norms.

    Example:
        >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0]), 0.5)
        tensor([1.5811, 1.5811])
    """
    norms = [v.norm(dim=-1, keepdim=True).clamp_min(1e-12) for v in (a, b)]
    a, b = a / norms[0], b / norms[1]
    angle = torch.acos((a * b).sum(-1, keepdim=True).clamp(-1.0, 1.0)).clamp(1e-4, torch.pi - 1e-4)
    mixed = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
    length = ((1 - t) * norms[0].square() + t * norms[1].square()).sqrt()
    return length * mixed / mixed.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def align(a: Tensor, b: Tensor) -> Tensor:
    """Pairs of frames of two log-mels (n_mels, frames) that belong together, (pairs, 2), from first to last.

    Dynamic time warping by Euclidean distance, with steps (1, 0), (0, 1) and (1, 1). The table of least costs is filled
    diagonal by diagonal; librosa's own compiles for some seconds first.
    """
    cost = torch.cdist(a.T[None].double(), b.T[None].double())[0].cpu().numpy()
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for diagonal in range(rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        total[i + 1, j + 1] = cost[i, j] + np.minimum(total[i, j], np.minimum(total[i, j + 1], total[i + 1, j]))
    i, j = rows, columns
    path = [(i - 1, j - 1)]
    while (i, j) != (1, 1):
        i, j = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda pair: total[pair])
        path.append((i - 1, j - 1))
    return torch.tensor(path[::-1])


def frames_at(path: Tensor, t: float) -> Tensor:
    """The pair of frames, (frames, 2), that is heard in each frame of the sound at ``t`` between 0 and 1.

    Pair (i, j) stands at (1 - t) i + t j; at t = 0 every frame i has its turn, at t = 1 every frame j.
    """
    place = (1 - t) * path[:, 0].double() + t * path[:, 1].double()
    frames = torch.arange(round(float(place[-1])) + 1, dtype=torch.float64)
    return path[torch.searchsorted(place, frames - 1e-9).clamp(max=len(path) - 1)]


def _end(audio: Tensor, loaded: LoadedModel, config: MorphConfig, which: int) -> _Encoded:
    """One of the two sounds, exactly."""
    model = loaded.model
    speaker = None
    if config.speakers is not None:
        index = model.config.speakers.index(config.speakers[which])
        speaker = torch.eye(len(model.config.speakers), dtype=torch.float64, device=loaded.device)[index : index + 1]
    mel = loaded.mel(Clip("", "", audio)).double()
    if config.pitches is not None:
        mel = _template_mel(loaded, config.pitches[which], len(audio), config.velocity)
    noise = model.encode(audio[None, None].double().to(loaded.device), mel, speaker)
    return _Encoded(noise.reshape(-1, model.hop_length), mel, speaker)


def _between(ends: list[_Encoded], path: Tensor | None, t: float, loaded: LoadedModel, config: MorphConfig) -> _Encoded:
    """What is made into the sound at ``t``."""
    a, b = ends
    if path is None:
        count = round((1 - t) * len(a.noise) + t * len(b.noise))
        at = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        pairs = torch.stack([(at * len(end.noise)).long() for end in ends], dim=1)
        pitch = (1 - t) * config.pitches[0] + t * config.pitches[1]
        mel = _template_mel(loaded, pitch, count * loaded.model.hop_length, config.velocity)
    else:
        pairs = frames_at(path, t)
        mel = (1 - t) * a.mel[..., pairs[:, 0]] + t * b.mel[..., pairs[:, 1]]
    noise = slerp(a.noise[pairs[:, 0]], b.noise[pairs[:, 1]], t)
    return _Encoded(noise, mel, None if a.speaker is None else (1 - t) * a.speaker + t * b.speaker)


def _of_one_length(steps: list[_Encoded]) -> list[list[int]]:
    """Numbers of the steps, those of one length together: a teacher's step costs little more for many than for one."""
    lengths = [len(step.noise) for step in steps]
    return [[n for n, found in enumerate(lengths) if found == length] for length in dict.fromkeys(lengths)]


def _template_mel(loaded: LoadedModel, pitch: float, samples: int, velocity: int) -> Tensor:
    rate = loaded.model.sample_rate
    return loaded.mel(Clip("", "", note_template(pitch, samples / rate, velocity, rate))).double()


def _check(loaded: LoadedModel, config: MorphConfig) -> None:
    model = loaded.model
    if loaded.is_student:
        raise WavedistillError(
            f"morph needs a model that turns sounds into noise in one pass: {loaded.name} is a student, give a teacher "
            "or a one-stage flow"
        )
    if loaded.is_teacher:
        model.need_gaussian("morph")
    known = model.config.speakers
    if bool(known) != (config.speakers is not None) or not {*(config.speakers or ())} <= {*known}:
        raise WavedistillError(
            f"{loaded.name} needs the speakers of both sounds: two of {', '.join(known)}"
            if known
            else f"{loaded.name} has no speakers: leave them out"
        )
    if plays_notes(known) != (config.pitches is not None):
        raise WavedistillError(
            f"{loaded.name} plays notes: give the pitches of both, as MIDI numbers (60 is middle C)"
            if plays_notes(known)
            else f"{loaded.name} plays no notes: leave the pitches out"
        )
