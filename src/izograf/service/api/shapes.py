"""What programs receive and send, as the OpenAPI document describes it. Times are ISO 8601, UTC."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from izograf.schema.job import Status
from izograf.schema.request import MAX_IMAGES, MAX_SEED
from izograf.schema.resolve import MAX_PROMPT
from izograf.store.pages import MAX_LIMIT

Item = TypeVar("Item")

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Value = bool | int | float | str
Moment = Annotated[str, Field(description="ISO 8601, UTC", examples=["2026-05-04T12:00:00.000Z"])]


class Sent(BaseModel):
    """What a client sends: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class ClassCondition(Sent):
    type: Literal["class"]
    class_: Name = Field(alias="class", description="English or Russian, any form of the word")


class TextCondition(Sent):
    """For models that read prompts. What they do not know is said in `remarks` of the job."""

    type: Literal["text"]
    prompt: str = Field("", max_length=MAX_PROMPT, description="English or Russian")
    negative_prompt: str = Field("", max_length=MAX_PROMPT)
    attributes: list[Name] = Field(
        default_factory=list, max_length=20, examples=[["sky=orange"]], description="name=value"
    )
    style: Name | None = Field(None, description="a name of `/api/v1/styles`")


class NoCondition(Sent):
    type: Literal["none"]


Condition = Annotated[ClassCondition | TextCondition | NoCondition, Field(discriminator="type")]


class Towards(Sent):
    """Where a strip of pictures leads: another seed, another class, or both."""

    seed: Seed | None = None
    class_: Name | None = Field(None, alias="class")


class JobOrder(Sent):
    """Image i has seed `seed + i`; with `towards` the images are a strip of equal steps instead."""

    task: Literal["generate"] = "generate"
    model: Name
    condition: Condition = NoCondition(type="none")
    num_images: int = Field(1, ge=1, le=MAX_IMAGES)
    seed: Seed | None = Field(None, description="random when left out")
    options: dict[str, Value] = Field(
        default_factory=dict, description="see `options_schema` of the model"
    )
    fast: bool = Field(False, description="the model's fast preset, under the options given")
    towards: Towards | None = None


class Links(BaseModel):
    self: str
    events: str
    images: str


class JobImage(BaseModel):
    id: str
    url: str
    seed: int
    label: str
    width: int
    height: int
    sha256: str


class Job(BaseModel):
    id: str
    status: Status
    task: str
    model: str
    condition: dict[str, str]
    num_images: int
    seed: int
    options: dict[str, Value]
    towards: dict[str, int | str] = Field(description="empty unless the images are a strip")
    owner: str
    priority: int
    attempt: int
    reason: str | None = Field(description="why it failed or died")
    created: Moment
    started: Moment | None
    finished: Moment | None
    seconds: float | None = Field(description="of computing, where known")
    joules: float | None = Field(description="of computing, where known")
    energy_method: str | None = Field(
        description="how `joules` came about; begins with measured, estimated or unknown"
    )
    result: dict[str, Any] = Field(description="of a `verify` job: verdict, psnr, remarks")
    queue_position: int | None = Field(description="1 is next; of one queued job only")
    images: list[JobImage] | None = Field(description="of one job that is done")
    remarks: list[str] = Field(
        description="of one job: words of the prompt that the model does not know, with near ones"
    )
    links: Links


class Image(BaseModel):
    id: str
    job_id: str
    url: str
    model: str
    label: str
    seed: int
    width: int
    height: int
    sha256: str = Field(description="of the PNG's bytes")
    favourite: bool
    created: Moment
    seconds: float | None
    joules: float | None
    energy_method: str | None = Field(
        description="how `joules` came about; begins with measured, estimated or unknown"
    )
    record: dict[str, Any] = Field(description="how it was made, as inside the PNG")


class Collection(BaseModel):
    id: str
    name: str
    created: Moment
    num_images: int
    images_url: str


class Class(BaseModel):
    name: str
    forms: dict[str, list[str]] = Field(description="language -> accepted words, the first shown")


class ModelSummary(BaseModel):
    name: str
    usable: bool
    problem: str | None = Field(description="why it is not usable")
    bundled: bool
    task: str | None = None
    family: str | None = None
    summary: str | None = None
    image_size: int | None = Field(default=None, description="pixels along an edge")
    conditions: list[str] = []
    classes: list[Class] = []
    licence: str | None = None
    fingerprint: str | None = Field(default=None, description="sha256 of the weights")
    url: str


class Worker(BaseModel):
    name: str
    device: str
    alive: bool
    busy: bool
    models: list[str]
    memory_bytes: int
    jobs_done: int
    starting: bool


class ServiceStatus(BaseModel):
    version: str
    accepting: bool = Field(description="whether the queue is being worked on")
    jobs: dict[str, int] = Field(description="status -> number of jobs, of everybody")
    your_queued: int
    workers: list[Worker]


class Page(BaseModel, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="send it as `cursor` for the next page")


class Listing(BaseModel, Generic[Item]):
    items: list[Item]


class Ids(Sent):
    ids: list[str] = Field(min_length=1, max_length=MAX_LIMIT)


class Marks(Sent):
    favourite: bool


class CollectionName(Sent):
    name: Name


class Count(BaseModel):
    count: int = Field(description="how many pictures were changed")


class Problem(BaseModel):
    """RFC 9457; `code` is stable, `detail` a sentence for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str
