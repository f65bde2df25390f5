"""Which waiting jobs may be computed in one tensor, and how a picture's record says so.

By default a tensor holds pictures of one request only: `batch: [first seed, count]` then names it
completely, and the same request gives the same bits whatever else the service is doing. Mixing
requests is an option of the engine, for accelerators that a small request cannot fill: the
pictures are the same within a grey level, and the record's `composition` lists every row of the
tensor, so that `verify` can compute the very same batch again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from izograf.engine.messages import GENERATE, Order, Task
from izograf.schema.record import COMPOSITION
from izograf.schema.request import GenerationRequest

Row = tuple[str | None, int]
"""One picture of a tensor: its class name, None where unconditioned, and its seed."""


def next_order(pending: Sequence[Task], *, batch_size: int, mix_requests: bool) -> Order:
    """The first waiting task, with those that may share its batch where mixing is allowed.

    A task that has failed before is computed alone, so that one that kills its worker costs its
    neighbours one attempt at most.
    """
    first, *others = pending
    tasks = [first]
    room = batch_size - first.request.num_images
    if mix_requests and first.attempt <= 1 and first.name == GENERATE:
        for task in others:
            fresh = task.attempt <= 1 and task.name == GENERATE
            fits = fresh and task.request.num_images <= room
            if fits and compatible(first.request, task.request):
                tasks.append(task)
                room -= task.request.num_images
    return Order(tuple(tasks))


def compatible(one: GenerationRequest, other: GenerationRequest) -> bool:
    """Whether the two may share a tensor: same model and options; no strips, no prompts."""
    return (
        one.condition.get("type") != "text"
        and not one.towards
        and not other.towards
        and one.model == other.model
        and one.options == other.options
        and one.condition.get("type") == other.condition.get("type")
    )


def compose(requests: Sequence[GenerationRequest]) -> tuple[Row, ...]:
    """The rows of the tensor that holds every picture of `requests`, in order."""
    return tuple((r.condition.get("class"), seed) for r in requests for seed in r.seeds)


def batch_record(request: GenerationRequest, rows: Sequence[Row]) -> Mapping[str, object]:
    """What the record of a picture of `request` says about the tensor `rows` it came from.

    `batch` names the request's own rows, as in every record; a reader that knows nothing of
    `composition` computes those, and finds the picture close instead of bit-exact.
    """
    own = {"batch": [request.seed, request.num_images]}
    if len(rows) == request.num_images:
        return own
    return own | {COMPOSITION: [list(row) for row in rows]}
