"""What a worker can be asked to do: the name of a job's task -> the function that does it.

    generate   the request's pictures
    verify     inputs: `picture`, a PNG made here. Makes it again with the request's model, and
               gives `verdict` ("bit-exact", "close", "different", "cannot"), `psnr` (dB; None when
               infinite or unknown) and `remarks` (sentences)

Nothing here knows torch: a `serving.Renderer` does the computing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from izograf.engine.messages import GENERATE, Task
from izograf.engine.protocol import Cost, EnginePicture
from izograf.schema.errors import InvalidInput

if TYPE_CHECKING:
    from izograf.engine.serving import Progress, Renderer

VERIFY = "verify"
PICTURE = "picture"  # the input that `verify` reads


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


def verify(renderer: Renderer, task: Task, progress: Progress) -> Outcome:
    """Whether a picture can be made again, and how closely."""
    result, cost = renderer.verify(task.request, required_input(task.inputs, PICTURE), progress)
    return Outcome(result=result, cost=cost)


TASKS: Mapping[str, Carry] = {GENERATE: generate, VERIFY: verify}


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
