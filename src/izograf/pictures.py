"""For a script: a picture in one call, `generate_image_from_text("закат над морем", "sea.png")`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from izograf.core.devices import Placement
    from izograf.core.types import Generator
    from izograf.schema.options import OptionValue


def generate_image_from_text(
    prompt: str,
    output_file: str | Path | None = None,
    *,
    model: str | None = None,
    negative_prompt: str = "",
    style: str | None = None,
    attributes: Sequence[str] = (),
    seed: int = 0,
    best_of: int = 1,
    upscale: int = 1,
    fast: bool = False,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    **options: OptionValue,
) -> Image:
    """A picture of what the prompt says, in English or Russian; same arguments, same pixels.

    A word that the model does not know is said in a `UserWarning`, with near ones that it does.

    Args:
        output_file: a .png to write as well; it carries how it was made (`izograf verify`).
        model: a name of `izograf models`, the folder of a model, or of a Stable Diffusion
            checkpoint in diffusers' layout; by default the bundled `scenes-text`, if it is there.
        style: a preset of `izograf styles`; attributes: `sky=orange`, `light=warm`, ...
        seed: which of the many pictures that the prompt allows.
        best_of: draw this many, from this seed on, and take the one that suits the prompt best.
        upscale: enlarge the picture 2, 4 or 8 times.
        fast: the model's fast preset: sooner there, a little less exact.
        device, precision, backend: chosen by themselves: the accelerator if there is one, bfloat16
            where it is faster.
        options: those of the model's card: `num_inference_steps=10`, `guidance_scale=4`.

    Returns:
        The picture, 8-bit RGB.

    Raises:
        izograf.schema.errors.IzografError: no such model, style or option, an empty prompt, a file
            that cannot be written; its text is one sentence for the user.
    """
    import warnings

    from izograf.core.devices import fingerprint
    from izograf.generators.ranking import best, ranking
    from izograf.generators.render import render, save_png, upscaled
    from izograf.generators.sheet import to_pil
    from izograf.generators.upscaler import load_upscaler
    from izograf.schema.errors import InvalidInput
    from izograf.schema.library import DEFAULT_UPSCALER, default_text_model
    from izograf.schema.prompting import compose_prompt
    from izograf.schema.record import check_factor
    from izograf.schema.request import MAX_BEST_OF, GenerationRequest
    from izograf.schema.resolve import resolve_request

    path = None if output_file is None else _png(output_file)
    if not 1 <= best_of <= MAX_BEST_OF:
        raise InvalidInput(f"best_of must be from 1 to {MAX_BEST_OF}, got {best_of}.")
    if upscale != 1:
        check_factor(upscale)
    model = default_text_model() if model is None else model
    generator, placement = _loaded(model, device, precision, backend)
    if best_of > 1:
        ranking(generator)
    prompted = compose_prompt(
        generator.card, prompt, negative=negative_prompt, given=attributes, style=style
    )
    for remark in prompted.remarks:
        warnings.warn(remark, stacklevel=2)
    chosen = generator.card.faster(options) if fast else options
    asked = GenerationRequest(model, prompted.condition, best_of, seed, chosen)
    request = resolve_request(generator.card, asked)
    pictures = list(render(generator, request, fingerprint(placement)))
    picture = best(generator, request, pictures, 1)[0] if best_of > 1 else pictures[0]
    if upscale != 1:
        place = {"device": placement.device, "precision": placement.precision}
        picture = upscaled(
            picture, load_upscaler(DEFAULT_UPSCALER, **place), DEFAULT_UPSCALER, upscale
        )
    if path is not None:
        save_png(path, picture)
    return to_pil(picture.pixels)


@functools.lru_cache(maxsize=1)
def _loaded(*place: Any) -> tuple[Generator, Placement]:
    """The model of the last call is kept: a script draws many pictures with one."""
    from izograf.checkpoints.load import load_generator
    from izograf.core.devices import configure_threads

    configure_threads()
    model, device, precision, backend = place
    return load_generator(model, device=device, precision=precision, backend=backend)


def _png(file: str | Path) -> Path:
    from izograf.schema.errors import InvalidInput

    path = Path(file)
    if path.suffix.lower() != ".png":
        raise InvalidInput(
            f"Pictures are written as PNG, which keeps how they were made: use {path.stem}.png."
        )
    return path
