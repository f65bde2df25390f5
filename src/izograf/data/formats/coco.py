"""COCO (Lin et al. 2014, arXiv:1405.0312): pictures with captions and object instances.

    annotations/captions_train2017.json, instances_train2017.json, the same of val2017
    train2017/000000000009.jpg, val2017/...         also below `images`

Columns: `text`, the first caption, and `captions`, all of them; `categories`, the names of all
objects in the picture, and `category`, the one that covers the largest area, which may be asked for
as the class. Pictures that no annotation file lists (`test2017`, `unlabeled2017`) are left out.
"""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from izograf.data.entries import (
    FORMATS,
    Entry,
    Location,
    Source,
    TreeSource,
    basename,
    content,
    is_sidecar,
)
from izograf.data.layout import Split, safe_name
from izograf.data.trees import Tree
from izograf.schema.errors import DataError

_ANNOTATIONS = re.compile(r"(?:.*/)?annotations/(captions|instances)_((train|val|test)\w*)\.json")

# Outlines and boxes are nine tenths of the file; they are dropped as soon as they are parsed.
_KEYS = frozenset({
    "images", "annotations", "categories", "id", "image_id", "file_name", "caption",
    "category_id", "area", "name",
})  # fmt: skip


@dataclass
class _Picture:
    """What the annotation files say about one picture."""

    file_name: str
    captions: list[str] = field(default_factory=list)
    areas: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def columns(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.captions:
            found |= {"text": self.captions[0], "captions": self.captions}
        if self.areas:
            largest = max(sorted(self.areas), key=self.areas.__getitem__)
            found |= {"categories": sorted(self.areas), "category": largest}
        return found


@FORMATS.register("coco")
def coco(location: Location) -> Source | None:
    """A folder or zip with annotation files of COCO's names in a folder `annotations`."""
    tree = location.tree
    tables = [name for name in tree.names() if name.endswith(".json")] if tree else []
    if tree is None or not any(map(_ANNOTATIONS.fullmatch, tables)):
        return None
    return TreeSource(tree, _entries, kind="coco-1")


def _entries(tree: Tree) -> Sequence[Entry]:
    files: dict[str, list[re.Match[str]]] = defaultdict(list)
    for name in tree.names():
        if found := _ANNOTATIONS.fullmatch(name):
            files[found[2]].append(found)
    folders = {part: _pictures(tree, part) for part in files}
    if not any(folders.values()):
        raise DataError(
            f"{tree.path} has COCO's annotations and none of its pictures: put them into "
            f"{' and '.join(sorted(files))}, beside the folder annotations."
        )
    return [
        entry
        for part, matches in sorted(files.items())
        if folders[part]
        for entry in _part(tree, part, matches, folders[part])
    ]


def _pictures(tree: Tree, part: str) -> dict[str, str]:
    """File name -> name in the tree, of the pictures in the folder `part`."""
    found = {}
    for name in tree.names():
        parents, _, base = name.rpartition("/")
        if basename(parents) == part and not is_sidecar(base):
            found[base] = name
    return found


def _part(
    tree: Tree, part: str, matches: Sequence[re.Match[str]], folder: Mapping[str, str]
) -> list[Entry]:
    pictures: dict[Any, _Picture] = {}
    for found in matches:
        where = f"{tree.path}/{found[0]}"
        try:
            _read(_parsed(tree, found[0]), pictures)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{where} is not in COCO's format ({type(error).__name__}: {error}): expected "
                "images, annotations and, for instances, categories."
            ) from error
    split: Split = "train" if part.startswith("train") else "test"
    entries = []
    for identity in sorted(pictures):
        picture = pictures[identity]
        base = basename(safe_name(picture.file_name, f"{tree.path}, annotations of {part}"))
        name = folder.get(base, f"{part}/{base}")
        opened = functools.partial(tree.read, name)
        entries.append(Entry(name, None, split, opened, picture.columns()))
    return entries


def _read(parsed: Mapping[str, Any], pictures: dict[Any, _Picture]) -> None:
    for image in parsed["images"]:
        pictures.setdefault(int(image["id"]), _Picture(str(image["file_name"])))
    names = {item["id"]: str(item["name"]) for item in parsed.get("categories", ())}
    for annotation in parsed["annotations"]:
        picture = pictures[annotation["image_id"]]
        if "caption" in annotation:
            picture.captions.append(" ".join(annotation["caption"].split()))
        else:
            picture.areas[names[annotation["category_id"]]] += float(annotation["area"])


def _parsed(tree: Tree, name: str) -> Any:
    def needed(pairs: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in pairs.items() if key in _KEYS}

    try:
        return json.loads(content(tree, name), object_hook=needed)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{tree.path}/{name} is not JSON: {error}. Download it again.") from error
