"""What a worker can be asked to do: the name of a job's task -> the function that does it.

    generate   the request's pictures
    edit       inputs: `original`, an 8-bit RGB PNG, and perhaps `mask`, another of the same size,
               white where it may change. The request's pictures, which begin with that one
    verify     inputs: `picture`, a PNG made here; where it was made by `edit`, its `original` and
               `mask`. Makes it again with the request's model, and gives `verdict` ("bit-exact",
               "close", "different", "cannot"), `psnr` (dB; None when infinite or unknown) and
               `remarks` (sentences)

Nothing here knows torch: a `serving.Renderer` does the computing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from izograf.engine.messages import GENERATE, Task
from izograf.engine.protocol import Cost, EnginePicture, OriginalFiles
from izograf.schema.errors import InvalidInput

if TYPE_CHECKING:
    from izograf.engine.serving import Progress, Renderer

EDIT, VERIFY = "edit", "verify"
PICTURE = "picture"  # the input that `verify` reads
ORIGINAL, MASK = "original", "mask"  # the inputs of `edit`


@dataclass(frozen=True)
class Outcome:
    """What a task gives: pictures, a JSON result, and what its computing took."""

    pictures: tuple[EnginePicture, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)


class Carry(Protocol):
    """Carries a task out. Raises whatever `Renderer` does."""

    def __call__(self, renderer: Renderer, task: Task, progress: Progress, /) -> Outcome: ...


def generate(renderer: Renderer, task: Task, progress: Progress) -> Outcome:
    """The pictures of the task's request."""
    pictures, cost = renderer.render(task.request, progress)
    return Outcome(pictures=pictures, cost=cost)


def edit(renderer: Renderer, task: Task, progress: Progress) -> Outcome:
    """The pictures of the task's request, all begun with one that was given."""
    required_input(task.inputs, ORIGINAL)
    pictures, cost = renderer.render(task.request, progress, original_of(task.inputs))
    return Outcome(pictures=pictures, cost=cost)


def verify(renderer: Renderer, task: Task, progress: Progress) -> Outcome:
    """Whether a picture can be made again, and how closely."""
    picture = required_input(task.inputs, PICTURE)
    result, cost = renderer.verify(task.request, picture, progress, original_of(task.inputs))
    return Outcome(result=result, cost=cost)


TASKS: Mapping[str, Carry] = {GENERATE: generate, EDIT: edit, VERIFY: verify}


def original_of(inputs: Mapping[str, bytes]) -> OriginalFiles | None:
    """What an edited picture begins with, among a task's inputs."""
    return OriginalFiles(inputs[ORIGINAL], inputs.get(MASK)) if ORIGINAL in inputs else None


def find_task(name: str) -> Carry:
    """The function that carries out the tasks of that name.

    Raises:
        InvalidInput: there is none.
    """
    if name not in TASKS:
        raise InvalidInput(f"Unknown task {name[:40]!r}: known are {', '.join(TASKS)}.")
    return TASKS[name]


def required_input(inputs: Mapping[str, bytes], name: str) -> bytes:
    """The content of a task's input.

    Raises:
        InvalidInput: the job was given none of that name.
    """
    if name not in inputs:
        raise InvalidInput(f"The job lacks its input {name!r}.")
    return inputs[name]
