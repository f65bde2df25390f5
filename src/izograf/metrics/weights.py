"""Weights of a feature extractor, read from a safetensors file by path; nothing is downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from izograf.schema.errors import CardError, InvalidInput, NotFound, UnsafeFile

PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".pkl", ".bin")


def load_weights(network: nn.Module, path: Path) -> str:
    """Copies the tensors of `path` into `network` (any float type) and returns the file's sha256.

    Raises:
        NotFound: no such file.
        UnsafeFile: a pickle, which could execute code.
        CardError: not a safetensors file, or its names or shapes are not this network's.
    """
    if path.suffix in PICKLE_SUFFIXES:
        raise UnsafeFile(
            f"{path} is a pickle and was not opened: convert it once with "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)."
        )
    if not path.is_file():
        raise NotFound(f"There is no weights file {path}.")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise CardError(f"{path} is not a safetensors file: {error}.") from error
    wanted = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")  # a counter of training, absent in old files
    }
    if missing := sorted(set(wanted) - set(tensors)):
        raise CardError(
            f"{path} has other weights: {len(missing)} of {len(wanted)} tensors are missing, "
            f"the first is {missing[0]}."
        )
    for name, tensor in wanted.items():
        if tensors[name].shape != tensor.shape:
            raise CardError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}, "
                f"expected {tuple(tensor.shape)}."
            )
    network.load_state_dict(tensors, strict=False)
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(network: nn.Module) -> str:
    """sha256 of the names and values of a network that has no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def frozen(network: nn.Module, device: str) -> nn.Module:
    """`network` in evaluation mode on `device`, without gradients, in channels-last layout."""
    network = network.eval().requires_grad_(False).to(torch.device(device))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def required(path: Path | None, extractor_id: str) -> Path:
    """`path`, which this extractor cannot do without.

    Raises:
        InvalidInput: no path was given.
    """
    if path is None:
        raise InvalidInput(f"The extractor {extractor_id} needs the path of its weights.")
    return path
