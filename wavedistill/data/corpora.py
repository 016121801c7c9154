"""The speech corpora of the recipes: where their files and texts are, and how to get them.

festvox-ru (Debian package ``festvox-ru``): 620 utterances of one Russian speaker, 16 kHz PCM.
Asterisk core sounds (Debian packages ``asterisk-core-sounds-XX-g722`` for the audio and
``asterisk-core-sounds-XX`` for the texts): studio prompts of five speakers in five languages, 16 kHz G.722.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from wavedistill.data.manifest import Entry, read_manifest, write_manifest
from wavedistill.data.prepare import PrepareReport, Recording, prepare_recordings
from wavedistill.errors import WavedistillError

ASTERISK_LANGUAGES = ("en", "es", "fr", "it", "ru")
FESTVOX_RU_PACKAGES = ("festvox-ru",)
ASTERISK_PACKAGES = tuple(
    f"asterisk-core-sounds-{language}{kind}" for language in ASTERISK_LANGUAGES for kind in ("", "-g722")
)

# Sounds that are no speech; ru's `is` is an empty file.
_NO_SPEECH = re.compile(r"silence/.*|beep(err)?|(a|de)scending-2tone|tt-monkeys|confbridge-(join|leave)")
_NOTE = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")
_UTTERANCE = re.compile(r'^\(\s*(\S+)\s+"((?:[^"\\]|\\.)*)"\s*\)\s*$')


def prepare_festvox_ru(out: str | Path, source: str | Path | None = None, **options) -> PrepareReport:
    """Prepare festvox-ru into ``out``: from ``source``, a folder with the unpacked package, or by apt-get
    (the package then stays unpacked in ``out``/source).

    Further options go to ``prepare_recordings``.
    """
    folder = _source(source, FESTVOX_RU_PACKAGES, out)
    return prepare_recordings(festvox_ru_recordings(folder), out, **options)


def prepare_asterisk(out: str | Path, source: str | Path | None = None, **options) -> PrepareReport:
    """Prepare the five Asterisk speakers into ``out``, as ``prepare_festvox_ru``."""
    folder = _source(source, ASTERISK_PACKAGES, out)
    return prepare_recordings(asterisk_recordings(folder), out, decode=decode_g722, **options)


def prepare_speech(out: str | Path, source: str | Path | None = None, **options) -> list[PrepareReport]:
    """Both corpora, six speakers: prepared into festvox_ru and asterisk beside ``out``, which gets the one
    merged manifest that points into them."""
    out = Path(out)
    parts = {"festvox_ru": prepare_festvox_ru, "asterisk": prepare_asterisk}
    reports = [prepare(out.parent / name, source, **options) for name, prepare in parts.items()]
    merge_manifests([out.parent / name / "manifest.jsonl" for name in parts], out / "manifest.jsonl")
    return reports


def merge_manifests(manifests: Iterable[str | Path], out: str | Path) -> list[Entry]:
    """Write one manifest over several; the audio stays where it is. Ids must not repeat."""
    entries = [entry for manifest in manifests for entry in read_manifest(manifest)]
    write_manifest(out, entries)
    return read_manifest(out)


def festvox_ru_recordings(folder: str | Path) -> list[Recording]:
    """The utterances below ``folder``, anywhere in which etc/txt.done.data and wav/ lie side by side."""
    prompts = _find(folder, "etc/txt.done.data", "festvox-ru")
    recordings = []
    for line in prompts.read_text(encoding="utf-8").splitlines():
        if match := _UTTERANCE.match(line):
            name = match[1]
            text = re.sub(r"\\(.)", r"\1", match[2])
            # "+" marks the stressed vowel for the synthesiser; it is no part of the sentence.
            recordings.append(
                Recording(
                    f"festvox_{name}",
                    prompts.parent.parent / "wav" / f"{name}.wav",
                    "festvox_ru",
                    text.replace("+", "").strip(),
                )
            )
    if not recordings:
        raise WavedistillError(f'{prompts}: no line of the form ( name "text" )')
    return recordings


def asterisk_recordings(folder: str | Path) -> list[Recording]:
    """The spoken prompts below ``folder``; speakers are named by language: en, es, fr, it, ru."""
    recordings = []
    for language in ASTERISK_LANGUAGES:
        texts = read_prompt_texts(_find(folder, f"core-sounds-{language}.txt.gz", f"asterisk-core-sounds-{language}"))
        voice = _find(folder, f"{language}_*/vm-goodbye.g722", f"asterisk-core-sounds-{language}-g722").parent
        for path in sorted(voice.rglob("*.g722")):
            name = path.relative_to(voice).with_suffix("").as_posix()
            text = texts.get(name.casefold())  # the lists and the files differ in case: letters/O, letters/o
            if _NO_SPEECH.fullmatch(name) or text == "" or path.stat().st_size == 0:
                continue
            recordings.append(Recording(f"{language}_{name.replace('/', '_')}", path, language, text))
    return recordings


def read_prompt_texts(path: str | Path) -> dict[str, str]:
    """Read core-sounds-XX.txt.gz: lower-case prompt name -> text without notes ("" where only a note stands)."""
    texts = {}
    for line in gzip.decompress(Path(path).read_bytes()).decode("utf-8-sig").splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            texts[name.strip().casefold()] = " ".join(_NOTE.sub(" ", text).split())
    return texts


def decode_g722(path: Path, max_seconds: float) -> tuple[Tensor, int]:
    """Raw G.722 at 64 kbit/s -> (audio (samples,) float32, 16000)."""
    try:
        import av
    except ImportError as error:
        raise WavedistillError("decoding G.722 needs PyAV: pip install av") from error
    if path.stat().st_size > max_seconds * 8000:  # 8 bits code two samples
        raise WavedistillError(f"{path}: {path.stat().st_size / 8000:.0f} s long, at most {max_seconds:g} s are taken")
    try:
        with av.open(str(path), format="g722") as container:
            blocks = [torch.from_numpy(frame.to_ndarray()).flatten() for frame in container.decode(audio=0)]
    except av.error.FFmpegError as error:
        raise WavedistillError(f"{path}: not readable as G.722 ({error})") from error
    if not blocks:
        raise WavedistillError(f"{path}: no samples in the file")
    return torch.cat(blocks).float() / 32768.0, 16000


def fetch_debian(packages: Iterable[str], folder: Path) -> None:
    """Download Debian packages with apt-get (no root needed) and unpack them into ``folder``."""
    packages = list(packages)
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise WavedistillError(
                f"{tool} is not on this machine; unpack the Debian packages {' '.join(packages)} "
                "yourself and give the folder: --source DIR"
            )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        _run(["apt-get", "download", *packages], downloads)
        for archive in sorted(Path(downloads).glob("*.deb")):
            _run(["dpkg-deb", "-x", str(archive), str(folder.absolute())], downloads)


def _run(command: list[str], folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise WavedistillError(
            f"{' '.join(command[:2])} failed: {lines[-1]}\nupdate the package lists "
            "(apt-get update), or give a folder with the unpacked packages: --source DIR"
        )


def _source(source: str | Path | None, packages: Iterable[str], out: str | Path) -> Path:
    """The given folder, or ``out``/source with the packages in it, downloaded if it is not there yet."""
    if source is not None:
        if not Path(source).is_dir():
            raise WavedistillError(f"{source}: no such folder; --source takes one with the unpacked Debian packages")
        return Path(source)
    folder = Path(out) / "source"
    if not folder.exists():
        partial = folder.with_name("source.partial")
        shutil.rmtree(partial, ignore_errors=True)
        fetch_debian(packages, partial)
        partial.replace(folder)
    return folder


def _find(folder: str | Path, pattern: str, package: str) -> Path:
    found = sorted(Path(folder).rglob(pattern))
    if not found:
        raise WavedistillError(
            f"{folder}: no {pattern} in it or below it; unpack the Debian package {package} "
            "there, or leave out --source to download it"
        )
    return found[0]
