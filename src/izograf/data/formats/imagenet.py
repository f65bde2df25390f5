"""ImageNet's layout: a folder per synset of WordNet, validation pictures in such or flat.

    train/n01440764/n01440764_18.JPEG       class and split; also ILSVRC2012_img_train/...
    val/n01440764/x.JPEG                    the same
    val/ILSVRC2012_val_00000001.JPEG        the class from one of the files of ground truth:
        LOC_val_solution.csv                    Kaggle's: picture, then synset and box
        val_annotations.txt                     Tiny ImageNet's: picture, synset, box
        *ground_truth.txt, *synset_labels.txt   line i is picture i: a synset, or its number as
                                                meta.mat or map_clsloc.txt of the kit tells
    test/...                                left out where it is not labelled

The class is the synset, because words are not unique (two classes are called `crane`). The words by
which it may be asked for come from LOC_synset_mapping.txt, synset_words.txt, map_clsloc.txt,
meta.mat or words.txt, wherever they lie.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping, Sequence

from izograf.data.catalog import Forms
from izograf.data.entries import (
    FORMATS,
    Entry,
    Location,
    Source,
    TreeSource,
    basename,
    content,
    is_sidecar,
    text,
)
from izograf.data.layout import Split
from izograf.data.matfile import read_structs
from izograf.data.trees import Tree
from izograf.schema.errors import DataError

_SYNSET = re.compile(r"n\d{8}")
_TRAIN = re.compile(r"((?:.*/)?)(?:ILSVRC2012_img_)?train/n\d{8}/.+")
_PART = re.compile(r"(?:ILSVRC2012_img_)?(train|val|test)")
_MAP, _META = "map_clsloc.txt", "meta.mat"
_WORDS = ("LOC_synset_mapping.txt", "synset_words.txt", _MAP, _META, "words.txt")
_LINE = re.compile(r"(n\d{8})\s+(?:\d+\s+)?(\S.*)")


@FORMATS.register("imagenet")
def imagenet(location: Location) -> Source | None:
    """A folder or zip with a folder `train` of synsets, at any depth."""
    tree = location.tree
    names = [name for name in tree.names() if "train/n" in name] if tree else []
    found = next(filter(None, map(_TRAIN.fullmatch, names)), None)
    if tree is None or found is None:
        return None
    listed = functools.partial(_entries, root=found[1])
    return TreeSource(tree, listed, words=_words, kind="imagenet-1")


def _entries(tree: Tree, root: str) -> Sequence[Entry]:
    labelled, flat = [], []
    for name in tree.names():
        part, *inner = name.removeprefix(root).split("/")
        match = _PART.fullmatch(part)
        if not name.startswith(root) or not match or not inner or is_sidecar(name):
            continue
        if len(inner) > 1 and _SYNSET.fullmatch(inner[0]):
            labelled.append(_entry(tree, name, inner[0], match[1]))
        elif match[1] == "val":
            flat.append(name)
    truth = _truth(tree, flat) if flat else {}
    labelled += [_entry(tree, name, truth.get(_stem(name)), "val") for name in flat]
    return sorted(labelled, key=lambda entry: entry.name)


def _entry(tree: Tree, name: str, synset: str | None, part: str) -> Entry:
    split: Split = "train" if part == "train" else "test"
    return Entry(name, synset, split, functools.partial(tree.read, name))


def _truth(tree: Tree, pictures: Sequence[str]) -> dict[str, str]:
    """Picture's name without suffix -> synset; empty where no file tells."""
    for name in tree.names():
        base = basename(name)
        if base == "LOC_val_solution.csv":
            rows = list(csv.reader(text(tree, name).splitlines()))[1:]
            return _checked({row[0]: row[1].split()[:1] for row in rows if len(row) > 1}, name)
        if base == "val_annotations.txt":
            cells = (line.split() for line in text(tree, name).splitlines())
            return _checked({_stem(row[0]): row[1:2] for row in cells if row}, name)
        if base.endswith(("ground_truth.txt", "synset_labels.txt")):
            return _by_line(tree, name, pictures)
    return {}


def _by_line(tree: Tree, name: str, pictures: Sequence[str]) -> dict[str, str]:
    """Line i is the picture whose name ends in the number i."""
    labels = text(tree, name).split()
    if any(label.isdecimal() for label in labels):
        numbers = _numbers(tree, name)
        labels = [numbers.get(label, label) for label in labels]
    found = {}
    for stem in map(_stem, pictures):
        number = stem.rpartition("_")[2]
        if not number.isdecimal() or not 1 <= int(number) <= len(labels):
            raise DataError(
                f"{tree.path}/{name} has {len(labels):,} lines, and none belongs to the picture "
                f"{stem}, which should end in the number of its line: rename the pictures as "
                "ILSVRC2012_val_00000001.JPEG."
            )
        found[stem] = [labels[int(number) - 1]]
    return _checked(found, name)


def _numbers(tree: Tree, name: str) -> dict[str, str]:
    """`1` -> n02119789: the order of ILSVRC's numbers is not that of the synsets."""
    for other in tree.names():
        if basename(other) == _META:
            return {number: synset for number, synset, _ in _meta(tree, other)}
        if basename(other) == _MAP:
            cells = (line.split() for line in text(tree, other).splitlines())
            return {row[1]: row[0] for row in cells if len(row) > 1}
    raise DataError(
        f"{tree.path}/{name} names classes by ILSVRC's numbers, and neither {_META} nor {_MAP} "
        "tells which synsets these are: add one from the development kit, or LOC_val_solution.csv."
    )


def _meta(tree: Tree, name: str) -> list[tuple[str, str, str]]:
    """Number, synset and words of every row of the development kit's table."""
    where = f"{tree.path}/{name}"
    try:
        rows = read_structs(content(tree, name))["synsets"]
        return [(f"{row['ILSVRC2012_ID']:.0f}", row["WNID"], str(row["words"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where} is not the development kit's table of synsets ({error}): unpack it again."
        ) from error


def _checked(found: Mapping[str, Sequence[str]], name: str) -> dict[str, str]:
    truth = {}
    for picture, labels in found.items():
        if len(labels) != 1 or not _SYNSET.fullmatch(labels[0]):
            raise DataError(
                f"{name} gives {picture} the class {' '.join(labels)!r}, expected a synset such as "
                "n01440764: download it again."
            )
        truth[picture] = labels[0]
    return truth


def _words(tree: Tree) -> dict[str, Forms]:
    """Synset -> its English words, as the first table that is there has them."""
    by_base = {basename(name): name for name in tree.names() if basename(name) in _WORDS}
    table = next(filter(by_base.__contains__, _WORDS), None)
    if table is None:
        return {}
    if table == _META:
        pairs = [(synset, words) for _, synset, words in _meta(tree, by_base[table])]
    else:
        lines = map(str.strip, text(tree, by_base[table]).splitlines())
        pairs = [(match[1], match[2]) for match in map(_LINE.fullmatch, lines) if match]
    return {
        synset: {"en": tuple(word.strip() for word in words.split(",") if word.strip())}
        for synset, words in pairs
    }


def _stem(name: str) -> str:
    return basename(name).rpartition(".")[0]
