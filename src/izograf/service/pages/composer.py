"""The form that makes pictures: what was typed, what a model's card offers, and what is wrong."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from starlette.datastructures import FormData, QueryParams

from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, IzografError, NotFound
from izograf.schema.labels import resolve_class
from izograf.schema.options import OptionSpec, OptionValue
from izograf.schema.prompting import compose_prompt, known_attributes, remarks_on
from izograf.schema.request import MAX_SEED, GenerationRequest
from izograf.schema.resolve import MAX_PROMPT
from izograf.schema.styles import language_of, usable_styles
from izograf.service.context import Service
from izograf.service.pages.i18n import Format, Translator

if TYPE_CHECKING:
    from izograf.service.pages.models import Sheet

ANY = "*"  # the chip for pictures without a class
DEFAULT_NUMBER = 4
SHORT_SEEDS = 100_000  # what dice give: easy to read out and to type
MANY_CLASSES = 24  # more are typed, not chosen from chips
LONGEST = 100  # characters of one field that are looked at, but for
PROMPTS = ("prompt", "negative")
PREFIX, ATTRIBUTE = "option.", "attribute."
# where the useful part of a wide range lies, for the slider beside the number
USEFUL: Mapping[str, tuple[float, float, float]] = {
    "num_inference_steps": (1, 50, 1),
    "guidance_scale": (0, 8, 0.25),
    "guidance_low": (0, 4, 0.1),
    "cache_interval": (1, 5, 1),
    "guidance_high": (0, 20, 0.5),
    "autoguidance_scale": (1, 4, 0.1),
    "truncation": (0, 1, 0.05),
    "eta": (0, 1, 0.05),
}


@dataclass(frozen=True)
class Typed:
    """The form as its fields hold it: text, right or wrong. `keep`: the seed stays."""

    model: str = ""
    label: str = ""
    number: str = str(DEFAULT_NUMBER)
    seed: str = ""
    keep: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""
    negative: str = ""
    style: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """One class: `row` is its row in the model's sheet of samples."""

    value: str
    word: str
    row: int
    chosen: bool


@dataclass(frozen=True)
class OptionField:
    """One option of the model as the form shows it.

    Attributes:
        choices: (value, words) of a choice.
        slider: (low, high, step) of the useful range of a number, or None.
        changed: the value is not the default.
    """

    spec: OptionSpec
    label: str
    help: str
    value: str
    default: str
    error: str
    changed: bool
    choices: tuple[tuple[str, str], ...] = ()
    slider: tuple[float, float, float] | None = None

    @property
    def name(self) -> str:
        return PREFIX + self.spec.name


@dataclass(frozen=True)
class PromptBox:
    """What the form of a model that reads prompts has in place of classes.

    Attributes:
        styles: (name, title) of the presets, chosen one first in none.
        attributes: (name, title, ((value, title), ...)) of what can be chosen instead of said.
        remarks: what the author of the prompt should read about it.
    """

    styles: tuple[tuple[str, str], ...]
    attributes: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]
    remarks: tuple[str, ...]
    longest: int = MAX_PROMPT


@dataclass(frozen=True)
class Composer:
    """Everything that the form's template needs.

    Attributes:
        most: how many pictures one job may have.
        box: where a prompt is typed; None for a model that reads none.
        sheet: the model's samples, by which its classes, or what prompts give, are shown.
    """

    models: tuple[ModelCard, ...]
    card: ModelCard
    typed: Typed
    classes: tuple[Choice, ...]
    options: tuple[OptionField, ...]
    errors: Mapping[str, str]
    most: int
    sheet: Sheet | None = None
    box: PromptBox | None = None

    @property
    def by_word(self) -> bool:
        """Whether the class is typed, because there are too many for chips."""
        return len(self.classes) > MANY_CLASSES

    @property
    def open(self) -> bool:
        """Whether the options are shown: one of them differs from its default, or is wrong.

        Those of a picture to begin with are always seen.
        """
        hidden = [option for option in self.options if not option.spec.of_a_picture]
        return any(option.changed or option.error for option in hidden)

    @property
    def num_changed(self) -> int:
        return sum(option.changed for option in self.options)


def roll_seed() -> str:
    return str(secrets.randbelow(SHORT_SEEDS))


def typed_in(form: FormData | QueryParams) -> Typed:
    """What a submitted form, or a link that fills it, holds."""
    items = [(k, v) for k, v in form.multi_items() if isinstance(v, str)]
    texts = [(k, v[: MAX_PROMPT if k in PROMPTS else LONGEST]) for k, v in items]
    fields = dict(texts)
    options = {k.removeprefix(PREFIX): v for k, v in texts if k.startswith(PREFIX)}
    attributes = {
        k.removeprefix(ATTRIBUTE): v.strip()
        for k, v in texts
        if k.startswith(ATTRIBUTE) and v.strip()
    }
    return Typed(
        fields.get("model", "").strip(),
        fields.get("class", "").strip(),
        fields.get("number", str(DEFAULT_NUMBER)).strip(),
        fields.get("seed", "").strip(),
        "keep" in fields,
        options,
        fields.get("prompt", "").strip(),
        fields.get("negative", "").strip(),
        fields.get("style", "").strip(),
        attributes,
    )


def faster(service: Service, typed: Typed) -> Typed:
    """The form with the options of the model's fast preset, and nothing else changed by hand."""
    card = service.catalogue.card(typed.model or service.settings.default_model)
    return replace(typed, options={name: plain(value) for name, value in card.fast.items()})


def typed_from(request: GenerationRequest, *, keep: bool) -> Typed:
    """The form that would make `request`."""
    label = request.condition.get("class", ANY)
    options = {name: plain(value) for name, value in request.options.items()}
    prompt, negative, style = prompt_fields(request.condition)
    return Typed(
        request.model, label, str(request.num_images), str(request.seed), keep, options,
        prompt, negative, style,
    )  # fmt: skip


def prompt_fields(condition: Mapping[str, str]) -> tuple[str, str, str]:
    """What was typed for a text condition: prompt, negative prompt and style.

    The negative words that a style added are not told from those typed, so a style comes alone.
    """
    style = condition.get("style", "")
    prompt = condition.get("asked") or condition.get("prompt", "")
    return prompt, "" if style else condition.get("negative_prompt", ""), style


def plain(value: OptionValue) -> str:
    """A value as a field holds it: `2` rather than `2.0`, `true` rather than `True`."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def compose(
    service: Service,
    t: Translator,
    typed: Typed,
    errors: Mapping[str, str] = {},
    *,
    editing: bool = False,
) -> Composer | None:
    """The form for `typed`; None if there is no model for it.

    With `editing` it is for pictures that begin with another one, and has the options for that.
    """
    cards = tuple(c for c in service.catalogue.generators() if c.edits or not editing)
    if not cards:
        return None
    named = {card.name: card for card in cards}
    default = named.get(service.settings.default_model, cards[0])
    card = named.get(typed.model, default)
    typed = replace(typed, model=card.name, seed=typed.seed or roll_seed())
    return Composer(
        cards, card, typed, _classes(card, typed.label, t.language),
        tuple(
            _option(spec, card, typed.options, t, errors)
            for spec in card.options
            if not spec.of_a_method and (editing or not spec.of_a_picture)
        ),
        errors, service.settings.max_images_per_job, box=_prompt_box(card, typed, t.language),
    )  # fmt: skip


def _prompt_box(card: ModelCard, typed: Typed, language: str) -> PromptBox | None:
    if "text" not in card.conditions:
        return None
    styles, _ = usable_styles()
    attributes = tuple(
        (
            each.name,
            capital(each.display(language)),
            tuple((v.name, v.words[language].forms[0]) for v in each.values.values()),
        )
        for each in known_attributes(card)
    )
    remarks = remarks_on(card, (typed.prompt, typed.negative), language_of(typed.prompt))
    return PromptBox(
        tuple((style.name, style.title[language]) for style in styles.values()), attributes, remarks
    )


def checked(
    service: Service, t: Translator, typed: Typed
) -> tuple[GenerationRequest, dict[str, str]]:
    """The request that the form asks for, and what is wrong with it by field.

    Raises:
        NotFound, InvalidInput: there is no such model.
    """
    card = service.catalogue.card(typed.model or service.settings.default_model)
    errors: dict[str, str] = {}
    most = service.settings.max_images_per_job
    number = _whole(typed.number, 1, most, "number", t, errors)
    seed = _whole(typed.seed or roll_seed(), 0, MAX_SEED - number, "seed", t, errors)
    if "text" in card.conditions:
        condition = _text_condition(card, typed, t, errors)
    else:
        condition = _condition(card, typed.label, t, errors)
    options = _checked_options(card, typed.options, t, errors)
    return GenerationRequest(card.name, condition, number, seed, options), errors


def _whole(text: str, low: int, high: int, name: str, t: Translator, errors: dict[str, str]) -> int:
    digits = text.replace(" ", "")
    if digits.isascii() and digits.isdigit() and low <= int(digits) <= high:
        return int(digits)
    errors[name] = t(f"generate.error.{name}", low=low, high=high)
    return low


def _condition(
    card: ModelCard, label: str, t: Translator, errors: dict[str, str]
) -> dict[str, str]:
    if label == ANY or not card.classes:
        return {"type": "none"}
    try:
        name = card.classes[resolve_class(label, card.classes)].name
    except NotFound as error:
        errors["class"] = t("generate.error.class") if not label else str(error)
        return {"type": "none"}
    return {"type": "class", "class": name}


def _text_condition(
    card: ModelCard, typed: Typed, t: Translator, errors: dict[str, str]
) -> dict[str, str]:
    given = [f"{name}={value}" for name, value in typed.attributes.items()]
    if not (typed.prompt or given):
        errors["prompt"] = t("generate.error.prompt")
        return {"type": "none"}
    try:
        prompted = compose_prompt(
            card, typed.prompt, negative=typed.negative, given=given, style=typed.style or None,
            presets=usable_styles()[0],
        )  # fmt: skip
    except (NotFound, InvalidInput) as error:
        errors["prompt"] = str(error)
        return {"type": "none"}
    return prompted.condition


def _checked_options(
    card: ModelCard, given: Mapping[str, str], t: Translator, errors: dict[str, str]
) -> dict[str, OptionValue]:
    """The options that were changed; those of another model are left out."""
    values: dict[str, OptionValue] = {}
    for spec in card.options:
        text = given.get(spec.name, "").strip()
        if not text:
            continue
        try:
            values[spec.name] = spec.parse(text.replace(",", ".") if _is_number(spec) else text)
        except InvalidInput as error:
            errors[PREFIX + spec.name] = option_error(spec, t, error)
    return values


def option_error(spec: OptionSpec, t: Translator, error: IzografError) -> str:
    """What is wrong with an option's value, in the reader's language."""
    if not _is_number(spec):
        return t("generate.error.choice")
    kind = "integer" if spec.kind == "integer" else "real"
    if spec.minimum is None or spec.maximum is None:
        return str(error) if t.language == "en" else t(f"generate.error.{kind}")
    return t(f"generate.error.{kind}_between", low=spec.minimum, high=spec.maximum)


def _is_number(spec: OptionSpec) -> bool:
    return spec.kind in ("integer", "number")


def _classes(card: ModelCard, chosen: str, language: str) -> tuple[Choice, ...]:
    if not card.classes:
        return ()
    names = [label.name for label in card.classes]
    wanted = chosen if chosen == ANY else _class_name(card, chosen) or names[0]
    return tuple(
        Choice(label.name, capital(label.display(language)), row, label.name == wanted)
        for row, label in enumerate(card.classes)
    )


def _class_name(card: ModelCard, text: str) -> str | None:
    try:
        return card.classes[resolve_class(text, card.classes)].name if text else None
    except NotFound:
        return None


def capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def _option(
    spec: OptionSpec,
    card: ModelCard,
    given: Mapping[str, str],
    t: Translator,
    errors: Mapping[str, str],
) -> OptionField:
    key, default = f"generate.option.{spec.name}", plain(spec.default)
    value = given.get(spec.name, "").strip() or default
    named = {label.name: label.display(t.language) for label in card.classes}
    words = tuple(
        (c, t.either(f"generate.choice.{spec.name}.{c}", named.get(c, c))) for c in spec.choices
    )
    shown = dict(words).get(default, default)
    if _is_number(spec):
        shown = Format(t.language).number(float(str(spec.default)))
    return OptionField(
        spec,
        t.either(f"{key}.label", capital(spec.name.replace("_", " "))),
        t.either(f"{key}.help", capital(spec.help)),
        value,
        shown,
        errors.get(PREFIX + spec.name, ""),
        value != default,
        words,
        _slider(spec),
    )


def _slider(spec: OptionSpec) -> tuple[float, float, float] | None:
    if not _is_number(spec):
        return None
    if spec.name in USEFUL:
        low, high, step = USEFUL[spec.name]
        return max(low, _or(spec.minimum, low)), min(high, _or(spec.maximum, high)), step
    if spec.minimum is None or spec.maximum is None or spec.maximum - spec.minimum > 100:
        return None
    step = 1 if spec.kind == "integer" else (spec.maximum - spec.minimum) / 100
    return spec.minimum, spec.maximum, step


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
