"""`izograf import`: a Stable Diffusion checkpoint becomes one of your models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Json


@app.command("import")
def import_model(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A folder in diffusers' layout, one .safetensors file, or owner/name of the "
            "Hugging Face hub."
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", help="What the model is called.", show_default="its file's")
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="For one file: a folder with model_index.json of the same kind of model, for "
            "tokenizer and configurations.",
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora", help="FILE.safetensors or FILE.safetensors:0.8 to add; may be repeated."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model of that name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add a Stable Diffusion checkpoint (1.x, 2.x, XL) to your models; its files stay in place."""
    from izograf.generators.stable_diffusion.hub import download, is_hub_name
    from izograf.generators.stable_diffusion.importing import import_checkpoint
    from izograf.generators.stable_diffusion.lora import parse_lora

    loras = [parse_lora(text) for text in lora or ()]
    path = Path(checkpoint)
    if is_hub_name(checkpoint):
        typer.echo(f"Downloading {checkpoint} from the Hugging Face hub.", err=True)
        path, name = download(checkpoint), name or checkpoint.partition("/")[2]
    folder, card = import_checkpoint(
        path, name=name, config=config, loras=loras, overwrite=overwrite
    )
    if as_json:
        facts = {"name": card.name, "folder": str(folder), "summary": card.summary}
        typer.echo(json.dumps([facts], ensure_ascii=False))
        return
    typer.echo(f"{card.name}  ({folder})  {card.summary}")
