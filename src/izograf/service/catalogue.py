"""The models of this service: read from disk again when they may have changed, never with torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.schema.library import Listed, list_models, unknown_model
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request

FRESH_SECONDS = 2.0  # a model trained meanwhile appears after so long


class Catalogue:
    """Models by name; a client's text is only ever compared with names, never used as a path.

    Safe to share between threads.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[Listed]] = list_models,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._clock = read, clock
        self._lock = threading.Lock()
        self._models: tuple[Listed, ...] = ()
        self._read_at = -float("inf")

    def models(self) -> tuple[Listed, ...]:
        """Every model on the search path, also broken ones; each name once, the first found."""
        with self._lock:
            if self._clock() - self._read_at >= FRESH_SECONDS:
                unique = {model.name: model for model in reversed(self._read())}
                self._models = tuple(reversed(unique.values()))
                self._read_at = self._clock()
            return self._models

    def generators(self) -> tuple[ModelCard, ...]:
        """Cards of the models that make pictures."""
        cards = (self.named(model) for model in self.models() if model.card is not None)
        return tuple(card for card in cards if card.task == "generate")

    def card(self, name: str) -> ModelCard:
        """The card of the model called `name`, under that name.

        Raises:
            NotFound: there is none; near names are suggested.
            InvalidInput: its card cannot be read.
        """
        for model in self.models():
            if model.name == name and model.card is None:
                raise InvalidInput(f"The model {name} cannot be used: {model.problem}")
            if model.name == name:
                return self.named(model)
        raise unknown_model(name, [model.name for model in self.models()])

    @staticmethod
    def named(model: Listed) -> ModelCard:
        """The card under the name by which the service knows the model."""
        assert model.card is not None
        return replace(model.card, name=model.name)

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """The request with its class by identifier and every option explicit, all checked.

        Raises:
            NotFound, InvalidInput: no such model or class; an option it does not take.
        """
        card = self.card(request.model)
        if card.task != "generate":
            raise InvalidInput(f"{request.model} makes no pictures: choose another model.")
        return resolve_request(card, request)
