"""Model cards: what the ``README.md`` of a checkpoint says about it.

A card is Markdown, with a header that the Hugging Face hub reads too::

    ---
    license: apache-2.0
    language: [en, ru]
    speakers: six voices, and the mel of any other
    credit: festvox-ru (BSD-like)
    ---

and, where the checkpoint was measured, tables in which a row or a column bears its folder's name.

References:
    https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wavedistill.models.pretrained import CARD_FILE


@dataclass(frozen=True)
class Card:
    """What is known of a checkpoint besides its configuration; "" or empty where the card does not say it.

    Attributes:
        path: the card, None where there is none.
        languages: codes of ISO 639, for example "en".
        licence: of the weights, as the hub names it.
        speakers: whose voices it was trained on and speaks with.
        credit: the recordings to name when the weights are passed on, and their licences.
        measured: quality on held-out clips, "METRIC value; METRIC value; ...".
    """

    path: Path | None = None
    languages: list[str] = field(default_factory=list)
    licence: str = ""
    speakers: str = ""
    credit: str = ""
    measured: str = ""


def read_card(folder: str | Path) -> Card:
    """Read the card of a checkpoint folder. A card without header or tables, or no card at all, is no error."""
    path = Path(folder) / CARD_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return Card()
    header = _header(text)
    languages = header.get("language", [])
    return Card(
        path=path,
        languages=[str(code) for code in (languages if isinstance(languages, list) else [languages])],
        licence=str(header.get("license", "")),
        speakers=str(header.get("speakers", "")),
        credit=str(header.get("credit", "")),
        measured=_measured(text, path.parent.name),
    )


def _header(text: str) -> dict[str, Any]:
    """The YAML between two lines of ``---`` at the start of a card."""
    if not text.startswith("---\n"):
        return {}
    try:
        values = yaml.safe_load(text[4:].partition("\n---\n")[0])
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def _measured(text: str, name: str) -> str:
    """The numbers of the checkpoint ``name``: its column in a table of bits by speaker, its row in one of systems."""
    bits = ""
    for heads, *rows in _tables(text):
        if heads[0] == "speaker" and name in heads and not bits:
            bits = f"bits per sample {rows[-1][heads.index(name)]}"  # the last row is the mean of all
        for row in rows:
            if row[0] == name:
                values = "; ".join(f"{head} {value}" for head, value in zip(heads[1:], row[1:], strict=False))
                return f"{bits}; {values}" if bits else values
    return bits


def _tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables of a text, each as rows of cells, the head first and the line below it left out."""
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            tables[-1].append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif tables[-1]:
            tables.append([])
    return [[table[0], *table[2:]] for table in tables if len(table) > 2]
