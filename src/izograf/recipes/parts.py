"""What several recipes need: optimisers, held-out losses, preview sheets, export with a card."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from izograf.checkpoints.files import read_weights, save_model
from izograf.core.config import apply_settings, config_from_json, config_to_json
from izograf.core.devices import Placement, free_threads, processor_name
from izograf.core.memory import available_memory
from izograf.core.pixels import to_uint8
from izograf.core.rng import generator, seeded_layers
from izograf.core.types import Batch, Condition, Generator, TextConditioned
from izograf.data.batches import Augmentation, BatchStream, horizontal_flip
from izograf.generators.autoencoder import split_weights
from izograf.generators.sheet import contact_sheet
from izograf.metrics.extractors import extract_features, open_extractor
from izograf.metrics.registry import METRICS
from izograf.recipes.registry import Hyperparameters, RunRequest
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.library import find_model, read_card
from izograf.training.run import Averaged
from izograf.training.trainer import autocast

C = TypeVar("C")

DTYPE_ON_DISK = torch.float16
PREVIEWS_PER_CLASS = 6
MAX_PREVIEW_CLASSES = 10
HELD_OUT_IMAGES = 1024


DATA_DECIDES = ("image_size", "num_classes", "num_words", "channels")
BYTES_PER_PARAMETER = 20  # float32 weight, gradient, two moments of Adam, moving average


def network_config(default: Callable[[], C], settings: Sequence[str]) -> C:
    """The recipe's default network with the user's `name=value` settings.

    Raises:
        InvalidInput: a picture size the network cannot have, a value it refuses, or a field that
            the data decides.
    """
    for setting in settings:
        name = setting.partition("=")[0].strip()
        if name in DATA_DECIDES:
            raise InvalidInput(f"{name} follows from the data: leave out --set {setting}.")
    try:
        config = default()
    except ValueError as error:
        raise InvalidInput(f"{error}.") from error
    return apply_settings(config, settings)


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    chosen: Hyperparameters,
    *,
    betas: tuple[float, float] = (0.9, 0.99),
    rate_factor: float = 1.0,
) -> Optimizer:
    """The chosen optimiser; L2 applies to matrices and kernels only, not to biases and norms.

    Raises:
        InvalidInput: a learning rate that is not positive, or a negative weight decay.
    """
    rate, decay = chosen.learning_rate, chosen.weight_decay or 0.0
    if rate is None or not 0 < rate < 10:
        raise InvalidInput(f"The learning rate must be positive and below 10, got {rate}.")
    if not 0 <= decay < 10:
        raise InvalidInput(f"The weight decay must be from 0 to below 10, got {decay}.")
    listed = list(parameters)
    groups = [
        {"params": [p for p in listed if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in listed if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate *= rate_factor
    if chosen.optimizer == "sgd":
        return SGD(groups, lr=rate, momentum=betas[0])
    optimizer_type = Adam if chosen.optimizer == "adam" else AdamW
    return optimizer_type(groups, lr=rate, betas=betas, eps=1e-8, fused=True)


def build_seeded(build: Callable[[], nn.Module], seed: int, placement: Placement) -> nn.Module:
    """A network initialised from `seed`, on the placement's device, channels last, float32.

    Raises:
        InvalidInput: training it would take more memory than there is.
    """
    _check_memory(build)
    with seeded_layers(seed, "initialisation"):
        network = build()
    network.to(placement.device)
    return network.to(memory_format=placement.memory_format)  # type: ignore[call-overload,no-any-return]


def start_from(
    name: str | None,
    network: nn.Module,
    network_name: str,
    config: Any,
    sampling: Mapping[str, Any] | None = None,
    *,
    new: Collection[str] = (),
) -> tuple[str, ...]:
    """Loads the served, averaged weights of the model called `name` (or in that folder).

    The fields `new` of its config may be others: the weights that hang on them keep their
    initialisation, but for tables of classes, whose first row, no class, is taken over.

    Returns the card's `parents`: that model as `name@sha256`, or nothing without a name.

    Raises:
        NotFound, CardError, UnsafeFile: no such model, or a broken one.
        InvalidInput: its network is another one, or it predicts something else.
    """
    if name is None:
        return ()
    folder = find_model(name)
    card = read_card(folder)
    _check_parent(card, network_name, config, sampling or {}, new)
    tensors = split_weights(read_weights(folder, card))[0]
    if new:
        own = network.state_dict()
        tensors = own | {
            key: tensors[key][: len(own[key])] for key in own if _fits(key, own, tensors)
        }
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CardError(f"The weights of {card.name!r} do not fit its card: {error}") from error
    return (f"{card.name}@{card.fingerprint}",)


def _fits(key: str, own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether the rows of `own` can be taken from the first of a tensor there."""
    if key not in theirs:
        return False
    ours, given = own[key].shape, theirs[key].shape
    return ours[1:] == given[1:] and ours[0] <= given[0]


def _check_parent(
    card: ModelCard,
    network_name: str,
    config: Any,
    sampling: Mapping[str, Any],
    new: Collection[str],
) -> None:
    """Refuses a model whose weights would mean something else in this run."""
    start = f"Training cannot start from {card.name}: its network is"
    if card.network.get("name") != network_name:
        raise InvalidInput(f"{start} {card.network.get('name')!r}, and here it is {network_name}.")
    if card.sampling.get("vocabulary") != sampling.get("vocabulary"):
        raise InvalidInput(
            f"{card.name} knows other words than the captions of this data have: train a new text "
            "encoder, without --init-from."
        )
    described = card.network.get("config", {})
    theirs = config_from_json(type(config), described, source=f"The card of {card.name!r}")
    ours, others = config_to_json(config), config_to_json(theirs)
    free = {"dropout", *new}  # the first has no weights
    different = [
        f"{key} is {others[key]} there and {ours[key]} here"
        for key in ours.keys() - free
        if others[key] != ours[key]
    ]
    if different:
        raise InvalidInput(
            f"{start} of another shape ({'; '.join(sorted(different))}): use --set, --image-size "
            "and data that give the same."
        )
    if card.sampling.get("autoencoder") != sampling.get("autoencoder"):
        raise InvalidInput(
            f"{card.name} was not trained on the latents of this run's autoencoder: name the same."
        )
    trained = sampling.get("preconditioner", {}).get("name")
    predicted = card.sampling.get("preconditioner", {}).get("name", trained)
    if predicted != trained:
        raise InvalidInput(
            f"{card.name} was trained to predict {predicted}, and this run trains {trained}: add "
            f"--objective {predicted}."
        )


def _check_memory(build: Callable[[], nn.Module]) -> None:
    available = available_memory()
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in build().parameters())
    except (RuntimeError, TypeError) as error:  # sizes beyond what a tensor can have
        raise InvalidInput("The network is too large to be built: choose a smaller one.") from error
    if count * BYTES_PER_PARAMETER > available:
        raise InvalidInput(
            f"Training this network of {count / 1e6:,.0f} M parameters needs "
            f"{count * BYTES_PER_PARAMETER / 1e9:,.0f} GB, and {available / 1e9:,.0f} GB are free: "
            "choose a smaller one."
        )


def training_batches(
    request: RunRequest,
    chosen: Hyperparameters,
    placement: Placement,
    *,
    mirror: Augmentation = horizontal_flip,
) -> BatchStream:
    """The shuffled, perhaps mirrored, training batches of a run."""
    assert chosen.batch_size is not None
    return BatchStream(
        request.train.images,
        request.train.class_ids,
        chosen.batch_size,
        seed=chosen.seed,
        device=placement.device,
        augment=mirror if chosen.flip else None,
    )


def held_out_evaluation(
    request: RunRequest,
    chosen: Hyperparameters,
    placement: Placement,
    loss: Callable[[nn.Module, Batch, torch.Generator], Tensor],
    module: str,
    *,
    name: str = "validation_loss",
    captioned: Callable[[BatchStream], Callable[[int], Batch]] | None = None,
) -> Callable[[Averaged], Mapping[str, float]] | None:
    """The mean `loss` of the averaged `module` on at most 1024 held-out images, called `name`.

    Always the same images and noise. `captioned` adds captions to the batches. None where the data
    has no held-out images.
    """
    held_out = request.held_out
    if len(held_out) == 0:
        return None
    size = min(chosen.batch_size or 64, len(held_out))
    count = max(1, min(HELD_OUT_IMAGES, len(held_out)) // size)
    stream = BatchStream(
        held_out.images, held_out.class_ids, size, seed=chosen.seed, device=placement.device
    )
    batch = stream if captioned is None else captioned(stream)

    @torch.no_grad()
    def evaluate(averaged: Averaged) -> Mapping[str, float]:
        total = 0.0
        for step in range(count):
            rng = generator(chosen.seed, "held-out", step, device=placement.device)
            with autocast(placement):
                total += float(loss(averaged[module], batch(step), rng))
        return {name: total / count}

    return evaluate


def kid_evaluation(
    request: RunRequest,
    chosen: Hyperparameters,
    generator_of: Callable[[Averaged], Generator],
    placement: Placement,
) -> Callable[[Averaged], Mapping[str, float]] | None:
    """KID of at most 1024 samples against as many held-out images, always the same seeds.

    Features come from a fixed random network, which needs no file and favours no model; good
    enough to see a GAN collapse, and not the judge that measures the finished model. None where
    the data has fewer than two held-out images.
    """
    held_out = request.held_out
    count = min(HELD_OUT_IMAGES, len(held_out))
    if count < 2:
        return None
    extractor = open_extractor("random-conv")
    real = extract_features(held_out.images[:count], extractor)
    size = chosen.batch_size or 64

    def evaluate(averaged: Averaged) -> Mapping[str, float]:
        made, fakes = generator_of(averaged), []
        for start in range(0, count, size):
            stop = min(count, start + size)
            condition = Condition(class_ids=held_out.class_ids[start:stop])
            with autocast(placement):
                fakes.append(to_uint8(made.sample(condition, range(start, stop))))
        fake = extract_features(fakes, extractor)
        return {"kid": METRICS["kid"].compute(real, fake, generator(chosen.seed, "kid"))}

    return evaluate


def preview_sheet(
    card: ModelCard,
    generator_of: Callable[[Averaged], Generator],
    placement: Placement,
    *,
    prompts: Sequence[str] = (),
) -> Callable[[Averaged, Path], None]:
    """Writes a sheet with a row of samples for each class (at most ten), seeds 0, 1, 2, ...

    Of a model that reads prompts, a row for each of `prompts`.
    """
    num_rows = len(prompts) or min(MAX_PREVIEW_CLASSES, len(card.classes)) or 1
    count = num_rows * PREVIEWS_PER_CLASS

    def preview(averaged: Averaged, path: Path) -> None:
        made = generator_of(averaged)
        ids = torch.arange(num_rows).repeat_interleave(PREVIEWS_PER_CLASS)
        condition = Condition(class_ids=ids) if card.classes else Condition()
        if isinstance(made, TextConditioned):
            condition = made.text_condition([prompts[row] for row in ids.tolist()])
        with autocast(placement):
            images = made.sample(condition, range(count))
        contact_sheet(to_uint8(images), columns=PREVIEWS_PER_CLASS).save(path)

    return preview


def model_card(request: RunRequest, *, recipe: str, paper: str, **facts: Any) -> ModelCard:
    """The card every recipe starts from: name, classes, data and recipe as they are known."""
    chosen: Hyperparameters = facts.pop("chosen")
    train = request.train
    taken = {"conditions": ("class",) if train.classes else (), "classes": train.classes}
    return ModelCard(
        name=request.name,
        image_size=request.image_size,
        data={
            "name": train.name,
            "licence": request.data_licence,
            "num_train": len(train),
            "num_held_out": len(request.held_out),
            "resize": train.resize,
        },
        recipe={"name": recipe, "paper": paper, "hyperparameters": _told(chosen)},
        **{**taken, **facts},
    )


def _told(chosen: Hyperparameters) -> dict[str, Any]:
    """The choices for a card, which names other models but not where they lay."""
    models = ("autoencoder", "perceptual", "init_from", "teacher", "text_encoder")
    return {k: Path(v).name if k in models else v for k, v in chosen.to_json().items()}


def exporter(
    card: ModelCard,
    weights_of: Callable[[Averaged], nn.Module],
    placement: Placement,
    *,
    beside: Sequence[str] = (),
) -> Callable[[Averaged, Path, Mapping[str, Any]], None]:
    """Writes the averaged weights as float16 with a card that tells how far training has come.

    `beside` are other files of the model, see `checkpoints.files.save_model`.
    """
    machine = {
        "device": placement.device,
        "precision": placement.precision,
        "processor": processor_name(),
        "threads": free_threads(),
        "platform": platform.system(),
        "torch": torch.__version__,
    }

    def export(averaged: Averaged, folder: Path, facts: Mapping[str, Any]) -> None:
        recipe = {**card.recipe, **facts, "machine": machine}
        complete = replace(card, recipe=recipe)
        tensors = weights_of(averaged).state_dict()
        save_model(folder, tensors, complete, dtype=DTYPE_ON_DISK, beside=beside)

    return export
