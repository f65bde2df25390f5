"""The words of a model's classes in every language, so that the gallery finds горы by mountain."""

from __future__ import annotations

from collections.abc import Mapping

from izograf.schema.errors import IzografError
from izograf.schema.library import CARD, find_model, read_card
from izograf.schema.request import GenerationRequest

MAX_MODELS = 256  # remembered at once


class SearchWords:
    """Called with a request: what its pictures are to be found by, beside the request's own words.

    Cards are read once, and again when they change. A card that cannot be read has no words: the
    picture is there all the same.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Mapping[str, str]]] = {}

    def __call__(self, request: GenerationRequest) -> str:
        asked = (request.condition.get("class"), request.towards.get("class"))
        names = [str(name) for name in asked if name is not None]
        if not names:
            return ""
        try:
            words = self._words(request.model)
        except (IzografError, OSError, ValueError):
            return ""
        return " ".join(words[name] for name in names if name in words)

    def _words(self, model: str) -> Mapping[str, str]:
        """Class name -> its words, of a model."""
        folder = find_model(model)
        changed = (folder / CARD).stat().st_mtime
        known = self._known.get(model)
        if known is None or known[0] != changed:
            if len(self._known) >= MAX_MODELS:
                self._known.clear()
            labels = read_card(folder).classes
            words = {
                label.name: " ".join(form for forms in label.forms.values() for form in forms)
                for label in labels
            }
            known = self._known[model] = changed, words
        return known[1]
