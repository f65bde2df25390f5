"""`izograf train`: from a folder of photographs to a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from izograf.cli.app import Stopped, app
from izograf.cli.arguments import ClassColumn, Data, Device, Precision, parse_count
from izograf.schema.errors import InvalidInput, MissingExtra
from izograf.schema.library import read_card

if TYPE_CHECKING:
    from izograf.recipes.registry import Hyperparameters, RunRequest
    from izograf.training.run import Scalars

RECOMMENDED = "diffusion-unet"
WHY = (
    "the best pictures and class agreement of the recipes here; choose dcgan when one fast pass "
    "per picture matters more"
)

NEXT = {  # what a finished model is for, by the task on its card
    "generate": "generate --model {out}",
    "classify": "evaluate MODEL --data DATA --judge {out}",
    "upscale": "upscale PICTURE --model {out} -o large.png",
    "autoencode": "train latent-diffusion --data DATA --autoencoder {out} --out runs/latent",
    "rank": "train text-to-image --data DATA --text-encoder {out} --out runs/text",
}


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new, or use --resume.")],
    recipe: Annotated[
        str | None, typer.Argument(help="See `izograf recipes`; default: the recommended one.")
    ] = None,
    class_column: ClassColumn = None,
    image_size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 64,
    images: Annotated[
        str | None, typer.Option(help="Train until this many images were seen (2M, 500k).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on exactly where it stopped.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; default: of the folder.")
    ] = None,
    licence: Annotated[
        str, typer.Option(help="Licence of the data, as its source states it; goes on the card.")
    ] = "not stated",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value, changes a field of the network's config."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    accumulation: Annotated[
        int | None, typer.Option(help="Parts a batch is split into to save memory.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Less memory, about a third more time."),
    ] = False,
    optimizer: Annotated[str | None, typer.Option(help="adamw, adam or sgd.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="What is minimised: flow, edm, hinge, ...; `izograf recipes` lists them all."
        ),
    ] = None,
    noise_law: Annotated[
        str | None,
        typer.Option(
            help="Diffusion: noise levels trained at: log-normal, logit-normal, linear, cosine, ..."
        ),
    ] = None,
    weighting: Annotated[
        str | None,
        typer.Option(help="Diffusion: how much a level counts: uniform or min-snr."),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(help="A model of the same network, or its folder, to start from."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Students: the diffusion model to learn from, or its folder."),
    ] = None,
    student_steps: Annotated[
        int | None, typer.Option(help="Students: steps per picture: 1, 2, 4 or 8.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Students: guidance of the teacher.", show_default="as the teacher's card says"
        ),
    ] = None,
    autoencoder: Annotated[
        str | None,
        typer.Option(help="latent-diffusion: the model whose latents are learned, or its folder."),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            "--text-encoder", help="text-to-image: the model that reads prompts, or its folder."
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="latent-diffusion: unet, dit or uvit.")
    ] = None,
    perceptual: Annotated[
        str | None,
        typer.Option(
            help="Autoencoders: a classifier, not the judge, whose features are compared."
        ),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="L2 regularisation.")] = None,
    l1: Annotated[float | None, typer.Option(help="L1 regularisation.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout of the network.")] = None,
    gradient_clip: Annotated[
        float | None, typer.Option(help="Largest gradient norm; 0 for no limit.")
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the run with rising rate.")] = None,
    decay: Annotated[str | None, typer.Option(help="none, cosine or linear.")] = None,
    ema_share: Annotated[
        float | None, typer.Option(help="Half-life of the weight average / images seen.")
    ] = None,
    early_snapshot: Annotated[
        float | None,
        typer.Option(
            help="Diffusion: keep the averaged weights after this share of the run (0.1) beside "
            "the model, for autoguidance."
        ),
    ] = None,
    class_dropout: Annotated[
        float | None, typer.Option(help="Share of images trained without their class.")
    ] = None,
    flip: Annotated[bool | None, typer.Option(help="Mirror images at random.")] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after this many evaluations without improvement; 0: never."),
    ] = None,
    evaluate_every: Annotated[str | None, typer.Option(help="Images between evaluations.")] = None,
    checkpoint_every: Annotated[
        str | None, typer.Option(help="Images between checkpoints.")
    ] = None,
    sample_every: Annotated[str | None, typer.Option(help="Images between sample sheets.")] = None,
    log_every: Annotated[str | None, typer.Option(help="Images between log lines.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="A skipped file is an error.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log for TensorBoard (an extra).")
    ] = False,
) -> None:
    """Train a model on your pictures; Ctrl-C saves, --resume goes on exactly.

    With no recipe the recommended one is taken.
    """
    from izograf.recipes.registry import Hyperparameters

    if recipe is None:
        recipe = RECOMMENDED
        typer.echo(f"No recipe named: taking {RECOMMENDED}, {WHY}.", err=True)
    all_settings = [*(settings or ()), *([f"dropout={dropout}"] if dropout is not None else ())]
    hyperparameters = Hyperparameters(
        images=parse_count(images) if images is not None else None,
        batch_size=_positive("--batch-size", batch_size),
        accumulation=_positive("--accumulation", accumulation),
        optimizer=_one_of("--optimizer", optimizer, ("adamw", "adam", "sgd")),
        objective=objective,
        noise_law=noise_law,
        weighting=weighting,
        init_from=_model_path(init_from),
        teacher=_model_path(teacher),
        student_steps=student_steps,
        guidance=guidance,
        gradient_checkpointing=gradient_checkpointing or None,
        autoencoder=_model_path(autoencoder),
        text_encoder=_model_path(text_encoder),
        backbone=backbone,
        perceptual=_model_path(perceptual),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        l1=l1,
        gradient_clip=gradient_clip,
        warmup=_share("--warmup", warmup),
        decay=_one_of("--decay", decay, ("none", "cosine", "linear")),
        ema_share=_share("--ema-share", ema_share),
        early_snapshot=early_snapshot,
        class_dropout=_share("--class-dropout", class_dropout),
        flip=flip,
        patience=_natural("--patience", patience),
        evaluate_every=parse_count(evaluate_every) if evaluate_every else None,
        checkpoint_every=parse_count(checkpoint_every) if checkpoint_every else None,
        sample_every=parse_count(sample_every) if sample_every else None,
        log_every=parse_count(log_every) if log_every else None,
        seed=seed,
        device=device,
        precision=precision,
        settings=tuple(all_settings),
    )
    asked = {
        "recipe": recipe,
        "data": [str(path.absolute()) for path in data],
        "class_column": class_column,
        "image_size": image_size,
        "name": name or out.name,
        "licence": licence,
        "hyperparameters": hyperparameters.to_json(),
    }
    _run(recipe, asked, data, hyperparameters, out, resume=resume, strict=strict, board=tensorboard)


def _run(
    recipe: str,
    asked: dict[str, Any],
    data: list[Path],
    hyperparameters: Hyperparameters,
    out: Path,
    *,
    resume: bool,
    strict: bool,
    board: bool,
) -> None:
    from izograf.cli.progress import training_progress
    from izograf.core.devices import configure_threads
    from izograf.recipes.registry import RECIPES
    from izograf.training.run import STOPPED_BY_SIGNAL, check_folder, execute

    configure_threads()
    chosen = RECIPES[recipe]
    chosen.check(hyperparameters)  # before the minutes that reading data may take
    open_scalars = _tensorboard(out) if board else None
    check_folder(out, asked, resume=resume)
    job = chosen.build(read_request(asked, data, hyperparameters, strict=strict))
    placement = job.placement
    typer.echo(f"Training {recipe} on {placement.device} in {placement.precision}.", err=True)
    with training_progress(job.training.images) as on_progress:
        reason = execute(
            job,
            out,
            asked=asked,
            resume=resume,
            on_progress=on_progress,
            open_scalars=open_scalars,
        )
    use = NEXT[read_card(out).task].format(out=out)
    typer.echo(f"{reason.capitalize()}. The model is {out}; try: izograf {use}")
    if reason == STOPPED_BY_SIGNAL:
        typer.echo("To go on exactly here, run the same command with --resume.", err=True)
        raise Stopped


def read_request(
    asked: dict[str, Any], data: list[Path], hyperparameters: Hyperparameters, *, strict: bool
) -> RunRequest:
    """Both splits of the data, read with a progress bar, and what was asked of the run."""
    from izograf.cli.progress import counting_progress
    from izograf.core.devices import cache_folder
    from izograf.data.dataset import load_images
    from izograf.recipes.registry import RunRequest
    from izograf.schema.errors import DataError

    cache = cache_folder() / "data"
    with counting_progress("reading pictures") as on_progress:
        train = load_images(
            data, asked["image_size"], split="train", strict=strict,
            class_column=asked["class_column"], cache_dir=cache, on_progress=on_progress,
        )  # fmt: skip
        try:
            held_out = load_images(
                data, asked["image_size"], split="test", strict=strict,
                class_column=asked["class_column"], cache_dir=cache, on_progress=on_progress,
            )  # fmt: skip
        except DataError:
            held_out = replace(
                train, images=train.images[:0], class_ids=train.class_ids[:0], names=()
            )
    if len(train) < 2:
        raise DataError(
            "There is one picture to train on, and at least two are needed: give more pictures."
        )
    if len(train.classes) == 1:
        raise DataError(
            f"There is one class only, {train.classes[0].name}, and a condition needs two or "
            "more: add classes, or leave out the class folder to train without a condition."
        )
    for line in (train.report.summary(), *train.report.warnings):
        typer.echo(line, err=True)
    return RunRequest(asked["name"], train, held_out, asked["licence"], hyperparameters)


def _tensorboard(out: Path) -> Callable[[int], Scalars]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtra(
            "--tensorboard needs an extra: pip install 'izograf[tensorboard]'."
        ) from None
    folder = str(out / "tensorboard")

    def open_writer(images_seen: int) -> Scalars:
        # what a killed run logged after its last checkpoint will be logged again
        writer: Scalars = SummaryWriter(folder, purge_step=images_seen + 1)
        return writer

    return open_writer


def _model_path(name: str | None) -> str | None:
    """A model's folder by its absolute path, so that --resume means the same one anywhere."""
    return str(Path(name).absolute()) if name is not None and Path(name).is_dir() else name


def _positive(option: str, value: int | None) -> int | None:
    if value is not None and not 1 <= value <= 1_000_000:
        raise InvalidInput(f"{option} must be from 1 to 1,000,000, got {value}.")
    return value


def _natural(option: str, value: int | None) -> int | None:
    if value is not None and value < 0:
        raise InvalidInput(f"{option} must be 0 or more, got {value}.")
    return value


def _share(option: str, value: float | None) -> float | None:
    if value is not None and not 0 <= value < 1:
        raise InvalidInput(f"{option} must be from 0 to below 1, got {value}.")
    return value


def _one_of(option: str, value: str | None, known: tuple[str, ...]) -> Any:
    if value is not None and value not in known:
        raise InvalidInput(
            f"{option} must be {', '.join(known[:-1])} or {known[-1]}, got {value!r}."
        )
    return value
