"""Speech for voices of 24 kHz: what may be bundled to train on, and people's voices to judge by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from wavedistill.data.corpora.asterisk import prepare_asterisk
from wavedistill.data.corpora.festvox_ru import prepare_festvox_ru
from wavedistill.data.corpora.speech import merge_manifests
from wavedistill.data.corpora.synthetic import render
from wavedistill.data.corpora.tuxpaint import prepare_tuxpaint
from wavedistill.data.prepare import PrepareConfig, prepare_recordings
from wavedistill.data.prepare_report import PrepareReport

SYNTHETIC_SENTENCES = 900


def prepare_wide(
    out: str | Path,
    source: str | Path | None = None,
    *,
    config: PrepareConfig,
    progress: Callable[[Iterable], Iterable] = iter,
    **options,
) -> list[PrepareReport]:
    """Four corpora beside ``out``: wide-synthetic, wide-festvox_ru and wide-asterisk, over which ``out`` gets one
    manifest, and wide-human, which is no part of it.

    ``source`` is a folder with the unpacked Debian packages. The two corpora of 16 kHz are taken as they are, with
    nothing above 8 kHz: their mels say so. Of the others, recordings without sound up there are refused.
    """
    out = Path(out)

    def beside(name: str) -> Path:
        return out.parent / f"{out.name}-{name}"

    options |= {"progress": progress}
    narrow = replace(config, min_bandwidth=0.0)
    spoken = render(beside("synthetic") / "source", SYNTHETIC_SENTENCES, progress)
    reports = [
        prepare_recordings(spoken, beside("synthetic"), config, **options),
        prepare_festvox_ru(beside("festvox_ru"), source, config=narrow, **options),
        prepare_asterisk(beside("asterisk"), source, config=narrow, **options),
        prepare_tuxpaint(beside("human"), source, config=config, **options),
    ]
    merge_manifests([report.manifest for report in reports[:3]], out / "manifest.jsonl")
    return reports
