"""Where models lie and what their cards say; standard library only, so listing needs no torch.

A name is looked up among the bundled models (`src/izograf/zoo`), then in every folder of
`$IZOGRAF_MODELS` (separated as `PATH` is), then in `./runs`. A path is taken as it is.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, IzografError, NotFound, UnsafeFile

CARD = "card.json"
DEFAULT_UPSCALER = "upscaler"
DEFAULT_TEXT_MODEL = "scenes-text"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
SAMPLES = "samples.png"
"""Pictures edge to edge, seeds from 0: a row for each class of the card, or one of its examples."""
MOST_COLUMNS = 12  # of such a sheet
ZOO = Path(__file__).resolve().parent.parent / "zoo"
# A file that marks another program's checkpoint -> the module whose `adopted` makes a card for it.
FOREIGN = {"model_index.json": "izograf.generators.stable_diffusion.importing"}
PICKLED = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"})
_PICKLE_HEADS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


@dataclass(frozen=True)
class Listed:
    """A model found on the search path; `card` is None when `problem` says why it is unusable."""

    name: str
    folder: Path
    bundled: bool
    card: ModelCard | None
    problem: str = ""


def search_path() -> list[Path]:
    """Folders that hold model folders, in the order in which names are looked up."""
    own = os.environ.get("IZOGRAF_MODELS", "").split(os.pathsep)
    return [ZOO, *(Path(folder) for folder in own if folder), Path("runs")]


def list_models() -> list[Listed]:
    """Every model on the search path, bundled first; a broken one is listed with its problem."""
    found: list[Listed] = []
    for folder in _model_folders():
        bundled = folder.parent == ZOO
        try:
            card = read_card(folder)
            found.append(Listed(card.name if bundled else folder.name, folder, bundled, card))
        except IzografError as error:
            found.append(Listed(folder.name, folder, bundled, None, str(error)))
    return found


def default_text_model() -> str:
    """The model that draws what a prompt says where none is named: the bundled one, or another.

    Raises:
        NotFound: there is none.
    """
    names = [
        listed.name
        for listed in list_models()
        if listed.card is not None
        and listed.card.task == "generate"
        and "text" in listed.card.conditions
    ]
    if names:
        return DEFAULT_TEXT_MODEL if DEFAULT_TEXT_MODEL in names else names[0]
    raise NotFound(
        "There is no model that reads prompts yet: train one with `izograf train text-to-image`, "
        "or name a Stable Diffusion checkpoint with --model."
    )


def find_model(name: str) -> Path:
    """The folder of the model called `name`, or at the path `name`.

    Of another program's checkpoint at that path it is a folder with a card made for it.

    Raises:
        NotFound: neither; the message suggests near names.
        UnsafeFile: the path is a pickle.
    """
    path = Path(name)
    if path.suffix.lower() in PICKLED or path.is_file():
        refuse_pickle(path)
    if (path / CARD).is_file():
        return path
    if path.name == CARD and path.is_file():
        return path.parent
    for mark, module in FOREIGN.items():
        if (path / mark).is_file():
            adopted: Path = importlib.import_module(module).adopted(path)
            return adopted
    known = {folder.name: folder for folder in reversed(list(_model_folders()))}
    if name in known:
        return known[name]
    if path.is_dir():
        raise NotFound(f"There is no model in {name}: a folder with {CARD} was expected.")
    if not known:
        raise NotFound(f"Unknown model {name!r}: there are no models yet; give a model's folder.")
    if HUB_NAME.fullmatch(name):
        raise NotFound(
            f"There is no model {name} here: if it is a Stable Diffusion checkpoint of the Hugging "
            f"Face hub, `izograf import {name}` downloads it."
        )
    raise NotFound(f"{unknown_model(name, known)} Give a name or the folder of a model.")


def unknown_model(name: str, known: Iterable[str]) -> NotFound:
    """The error for a name that is not among `known`, with the nearest ones."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are: {', '.join(names)}."
    return NotFound(f"Unknown model {name[:80]!r}: {hint}")


def read_card(path: Path) -> ModelCard:
    """The card of the model in the folder `path` (or of the card file itself).

    Raises:
        UnsafeFile: `path` is a pickle (.ckpt, .pt, ...): loading one can execute code.
        NotFound: nothing there; CardError: malformed.
    """
    refuse_pickle(path)
    file = path / CARD if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"There is no model in {path}: a folder with {CARD} was expected.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"{file} cannot be read: {error}.") from error
    return ModelCard.loads(text, source=str(file))


def refuse_pickle(path: Path) -> None:
    """Refuses files that Python's pickle would have to load.

    Raises:
        UnsafeFile: by suffix, or by the first bytes of a pickle or of a zip that holds one.
    """
    pickled = path.suffix.lower() in PICKLED
    if not pickled and path.is_file() and path.suffix != ".json":
        with path.open("rb") as file:
            pickled = file.read(4).startswith(_PICKLE_HEADS)
    if pickled:
        raise UnsafeFile(
            f"{path} is a pickle, which can execute code when loaded, so it is refused. Convert it "
            "to safetensors on a machine you trust: load it there with torch.load and write it "
            "with safetensors.torch.save_file."
        )


def _model_folders() -> Iterator[Path]:
    for parent in search_path():
        if parent.is_dir():
            yield from sorted(path.parent for path in parent.glob(f"*/{CARD}"))
