"""Checkpoints of the Hugging Face hub, downloaded when asked for by name, into its own cache."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from izograf.generators.stable_diffusion.extra import required
from izograf.schema.errors import InvalidInput, NotFound

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_SETTINGS = ("*.json", "tokenizer*/*.txt", "tokenizer*/*.model")
_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "safety_checker")


def is_hub_name(text: str) -> bool:
    """Whether it has the form owner/name and is no path that exists."""
    return bool(_NAME.fullmatch(text)) and not Path(text).exists()


def download(name: str) -> Path:
    """The folder of the checkpoint `owner/name`: configurations, tokenizers and safetensors.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        NotFound: the hub has no such checkpoint, or shows it only to those who agreed to its terms.
        InvalidInput: there is no network, or the hub does not answer.
    """
    hub = required("huggingface_hub")
    errors = required("huggingface_hub.errors")
    try:
        files = hub.HfApi().list_repo_files(name)
        return Path(hub.snapshot_download(name, allow_patterns=wanted(files)))
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        raise NotFound(
            f"The hub has no checkpoint {name}, or asks you to agree to its terms first: look at "
            f"its page there, and log in with huggingface_hub's `hf auth login`. {_reason(error)}"
        ) from error
    except Exception as error:
        if not isinstance(error, _failures(errors)):
            raise
        raise InvalidInput(
            f"{name} could not be downloaded from the hub ({_reason(error)}): check the network, "
            "or download the checkpoint elsewhere and give its folder."
        ) from error


def wanted(files: Sequence[str]) -> list[str]:
    """Of a checkpoint's files those that are needed: each network once, as safetensors.

    Where a network comes in several precisions it is the plain one, unless only a half one is
    there. Nothing else, pickles least of all, is downloaded.
    """
    chosen = [name for name in files if any(fnmatch.fnmatch(name, p) for p in _SETTINGS)]
    for part in _PARTS:
        own = [f for f in files if fnmatch.fnmatch(f, f"{part}/*.safetensors")]
        chosen += _first(own, [_is_plain, lambda name: ".fp16." in name])
    return [re.sub(r"([*?\[])", r"[\1]", name) for name in chosen]


def _first(names: Sequence[str], tests: Sequence[Callable[[str], bool]]) -> list[str]:
    for test in tests:
        if found := [name for name in names if test(name)]:
            return found
    return []


def _is_plain(name: str) -> bool:
    stem = name.rpartition("/")[2].removesuffix(".safetensors")
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", stem)
    return stem in ("model", "diffusion_pytorch_model")


def _failures(errors: object) -> tuple[type[BaseException], ...]:
    """What the client raises when there is no answer, whatever its transport is."""
    named = ("HfHubHTTPError", "LocalEntryNotFoundError", "OfflineModeIsEnabled")
    known = tuple(getattr(errors, name) for name in named if hasattr(errors, name))
    transport = required("httpx")
    return (*known, transport.HTTPError, OSError)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
