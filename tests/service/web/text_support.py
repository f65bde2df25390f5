"""A model that reads prompts, for the pages and the interface on the fake engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from izograf.schema.attributes import attributes, phrase
from izograf.schema.card import ModelCard
from izograf.schema.library import Listed, list_models
from izograf.schema.vocabulary import split_words
from izograf.service.catalogue import Catalogue
from izograf.service.context import Service

READER = "reader"
KNOWN = ("a sea forest under море лес над с", "warm light sky orange blue", "небом оранжевым")


def reader_card(service: Service) -> ModelCard:
    """As that of the bundled model, but it reads prompts of a few words."""
    scenes = next(card for card in service.catalogue.generators() if card.name == "scenes")
    skies = [phrase({"sky": (value,)}, "en") for value in attributes()["sky"].values]
    words = dict.fromkeys(word for text in (*KNOWN, *skies) for word in split_words(text))
    text = {
        "network": {"name": "clip", "config": {"max_words": 12}},
        "vocabulary": " ".join(words),
    }
    return replace(
        scenes, name=READER, family="text-to-image", conditions=("text",), classes=(),
        sampling={"text": text},
        options=tuple(spec for spec in scenes.options if spec.name != "negative_class"),
    )  # fmt: skip


def with_reader(service: Service) -> Service:
    """The service with one more model, called `reader`."""
    added = Listed(READER, Path("nowhere"), False, reader_card(service))
    return replace(service, catalogue=Catalogue(lambda: [*list_models(), added]))
