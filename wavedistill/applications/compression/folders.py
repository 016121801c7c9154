"""Compress and decompress files and folders: what is done is not redone, what fails is listed and stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wavedistill.applications.compression.codec import decode, describe_damage, encode
from wavedistill.applications.compression.container import SUFFIX, pcm_crc, read_container, unpack
from wavedistill.applications.compression.model import Codec, load_codec
from wavedistill.applications.compression.pcm import SUFFIXES, read_pcm, write_pcm
from wavedistill.errors import OutputError, WavedistillError
from wavedistill.files import check_name, files_of, remove_leftovers, write_bytes


@dataclass
class Report:
    """What became of the files.

    Attributes:
        written: outputs made.
        skipped: outputs that were there already, of the same samples.
        failures: one sentence for each input that could not be done.
        warnings: one sentence for each output with something missing.
        bytes_before, bytes_after: of the written files: plain PCM (compress) or the container (decompress), and the
            output.
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bytes_before: int = 0
    bytes_after: int = 0


def compress(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    checkpoint: str | Path | None = None,
    verify: bool = False,
    progress: bool = False,
) -> Report:
    """Compress wav and flac files without loss: ``in/a/b.wav`` becomes ``out/a/b.wav.wdc``.

        compress("recordings", "packed")

    8 to 24 bits, mono or stereo, any rate and length. The samples are kept, tags and other chunks of the files are not.

    Args:
        inputs: files or folders, searched with their sub-folders.
        out: output folder.
        checkpoint: folder of a codec; None takes the bundled one. Decompressing needs the same.
        verify: decode each file again before it is written.
        progress: show a bar on stderr.

    Inputs that fail are listed in the report. An output of the same samples and codec is not made again.

    Raises:
        WavedistillError: missing inputs or codec, or outputs that cannot be told apart.
    """
    codec = _load(checkpoint, progress)
    out = Path(out)
    pairs = [(path, out / f"{relative}{SUFFIX}") for relative, path in _find(inputs, SUFFIXES, out)]

    def one(path: Path, output: Path, report: Report, tell: Callable[[int], object]) -> None:
        remove_leftovers(output.parent, output.name)
        pcm = read_pcm(path)
        if _holds(output, pcm_crc(pcm), codec):
            report.skipped.append(output)
            return
        data = encode(pcm, codec, tell)
        if verify and (decode(unpack(data, path), codec, path).samples != pcm.samples).any():
            raise WavedistillError(f"{path}: decoding gives other samples; nothing is written")
        write_bytes(output, data)
        report.written.append(output)
        report.bytes_before += len(pcm.samples) * pcm.frame_bytes
        report.bytes_after += len(data)

    return _each(pairs, one, "compressing", progress)


def decompress(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    checkpoint: str | Path | None = None,
    keep_going: bool = False,
    progress: bool = False,
) -> Report:
    """Decompress ``.wdc`` files to what they were: ``in/a/b.wav.wdc`` becomes ``out/a/b.wav``.

    Args:
        inputs: files or folders, searched with their sub-folders.
        out: output folder.
        checkpoint: folder of the codec that wrote them; None takes the bundled one.
        keep_going: write damaged files too, with silence in place of the chunks that are lost, and a warning.
        progress: show a bar on stderr.

    Inputs that fail are listed in the report. An output that holds these samples already is not made again; one that
    holds others is a failure.

    Raises:
        WavedistillError: missing inputs or codec, or outputs that cannot be told apart.
    """
    codec = _load(checkpoint, progress)
    out = Path(out)
    pairs = [(path, out / relative) for relative, path in _find(inputs, (SUFFIX,), out)]

    def one(path: Path, output: Path, report: Report, tell: Callable[[int], object]) -> None:
        container = read_container(path)
        output = _named(output, container.header.format)
        remove_leftovers(output.parent, output.name)
        if output.exists():
            if pcm_crc(read_pcm(output)) != container.header.crc:
                raise WavedistillError(f"{path}: {output} exists and holds other samples: move it away first")
            report.skipped.append(output)
            return
        write_pcm(output, decode(container, codec, path, keep_going=keep_going, progress=tell))
        report.written.append(output)
        if container.damaged:
            report.warnings.append(f"{path}: {describe_damage(container)}; silence in {output}")
        report.bytes_before += path.stat().st_size
        report.bytes_after += output.stat().st_size

    return _each(pairs, one, "decompressing", progress)


def _load(checkpoint: str | Path | None, progress: bool) -> Codec:
    from tqdm import tqdm

    with tqdm(
        total=1, desc="loading the codec (the first time, compiling it)", leave=False, disable=not progress
    ) as bar:
        codec = load_codec(checkpoint)
        bar.update()
    return codec


def _each(pairs: Iterable[tuple[Path, Path]], one: Callable, title: str, progress: bool) -> Report:
    """Do ``one`` for each (input, output); its errors become failures."""
    from tqdm import tqdm

    report = Report()
    pairs = list(pairs)
    with tqdm(unit=" samples", unit_scale=True, desc=title, disable=not progress) as bar:
        for number, (path, output) in enumerate(pairs, 1):
            bar.set_postfix_str(f"file {number} of {len(pairs)}")
            try:
                check_name(output)
                one(path, output, report, bar.update)
            except OutputError:
                raise
            except WavedistillError as error:
                report.failures.append(str(error))
    return report


def _find(inputs: str | Path | Sequence[str | Path], suffixes: tuple[str, ...], out: Path) -> list[tuple[str, Path]]:
    """(path below the output folder, path) of every file that is meant, sorted."""
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    if not given:
        raise WavedistillError(f"there is nothing to do: give {', '.join(suffixes)} files, or folders of them")
    found: dict[str, Path] = {}
    for place in map(Path, given):
        for relative, path in files_of(place, suffixes, skip=out):
            if found.setdefault(relative, path) != path:
                raise WavedistillError(
                    f"{found[relative]} and {path} would both be written as {out / relative}: use two output folders, "
                    "or give the folder above both"
                )
    return sorted(found.items())


def _holds(output: Path, crc: int, codec: Codec) -> bool:
    """Whether ``output`` is a whole container of these samples by this codec."""
    if not output.is_file():
        return False
    try:
        container = read_container(output)
    except WavedistillError:
        return False
    header = container.header
    return header.crc == crc and header.fingerprint == codec.fingerprint and not container.damaged


def _named(output: Path, format_name: str) -> Path:
    """The name without ``.wdc``, and with the suffix of the format if a renamed file has lost it."""
    name = output.with_suffix("")
    return name if name.suffix.lower() in SUFFIXES else name.with_name(f"{name.name}.{format_name.lower()}")
