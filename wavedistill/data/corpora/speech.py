"""Both speech corpora together: six speakers, one manifest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wavedistill.data.corpora.asterisk import prepare_asterisk
from wavedistill.data.corpora.festvox_ru import prepare_festvox_ru
from wavedistill.data.manifest import Entry, read_manifest, write_manifest
from wavedistill.data.prepare_report import PrepareReport


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
