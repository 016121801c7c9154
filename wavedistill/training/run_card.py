"""The model card of a run's checkpoint: whose voices it heard, and whose weights and licence it goes on from."""

from __future__ import annotations

from typing import Any

import yaml

from wavedistill.data.dataset import SpeechDataset
from wavedistill.errors import WavedistillError
from wavedistill.models.base import WaveformModel
from wavedistill.models.card import Card, read_card
from wavedistill.models.pretrained import default_card, resolve_checkpoint
from wavedistill.training.recipe import Recipe

_SHOWN = 12


def run_card(model: WaveformModel, recipe: Recipe, dataset: SpeechDataset) -> str:
    """Text of the card in Markdown, with the header that `wavedistill.models.card` reads.

    Licence and credit are those of the checkpoints that the run starts from or learns from, where they have a card.
    About the recordings it says whose they are; their own licence is for whoever passes the weights on to add.
    """
    sources = (recipe.run.init_from, getattr(recipe, "start_from", None), getattr(recipe, "teacher", None))
    cards = {name: card for name in dict.fromkeys(sources) if name and (card := _card(name)) is not None}
    speakers = sorted({entry.speaker for entry in dataset.entries})
    more = f" and {len(speakers) - _SHOWN} more" if len(speakers) > _SHOWN else ""
    header: dict[str, Any] = {"speakers": ", ".join(speakers[:_SHOWN]) + more}
    licences = {card.licence for card in cards.values() if card.licence}
    if len(licences) == 1:
        header["license"] = licences.pop()
    if credits := list(dict.fromkeys(card.credit for card in cards.values() if card.credit)):
        header["credit"] = "; ".join(credits)
    if cards:
        header["base_model"] = list(cards)
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n\n{default_card(model, 'checkpoint')}\n{_data(model, dataset, list(cards))}\n"


def _data(model: WaveformModel, dataset: SpeechDataset, sources: list[str]) -> str:
    heard = f"{len(dataset)} recordings ({dataset.seconds / 60:.1f} minutes)"
    start = f" It goes on from {' and '.join(sources)}, whose licence and credit stand above." if sources else ""
    mel = model.config.mel
    settings = f" Mel: {mel.n_mels} bands, hop {mel.hop_length}, {mel.f_min:g} to {mel.f_max:g} Hz." if mel else ""
    return f"Trained on {heard}.{start}{settings} Add the licence of your recordings before you pass it on."


def _card(checkpoint: str) -> Card | None:
    """A checkpoint's card; None where it is not there any more."""
    try:
        return read_card(resolve_checkpoint(checkpoint))
    except WavedistillError:
        return None
