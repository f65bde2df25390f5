"""`/api/v1/images`: the gallery."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import Header, Query, Response
from starlette.responses import StreamingResponse

from izograf.schema.errors import StorageError
from izograf.schema.job import StoredImage
from izograf.service import deletion, orders
from izograf.service.access import Identity, User, Viewer
from izograf.service.api import shapes
from izograf.service.api.archive import file_stem, zipped
from izograf.service.api.routing import Responses, interface_router
from izograf.service.api.views import image_view, job_url, job_view, page_view
from izograf.service.context import Running, Service
from izograf.service.search import search_text
from izograf.store.images import ImageFilter
from izograf.store.pages import MAX_LIMIT

router = interface_router("/api/v1/images", "images")

FOREVER = "private, max-age=31536000, immutable"  # the content of a picture never changes
PNG: Responses = {
    200: {
        "description": "the picture, its record inside",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "the client has it already"},
}
ZIP: Responses = {200: {"description": "a zip", "content": {"application/zip": {}}}}


@router.get("", summary="List pictures, newest first")
def list_images(
    service: Running,
    identity: Viewer,
    q: Annotated[str | None, Query(description="words, English or Russian")] = None,
    model: str | None = None,
    label: Annotated[str | None, Query(description="a class by its identifier")] = None,
    favourite: bool | None = None,
    collection: str | None = None,
    job: str | None = None,
    created_from: datetime | None = None,
    created_before: datetime | None = None,
    deleted: Annotated[bool, Query(description="those that can still be restored")] = False,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> shapes.Page[shapes.Image]:
    wanted = ImageFilter(
        owner=identity.visible_owner,
        model=model,
        label=label,
        job_id=job,
        favourite=favourite,
        created_from=seconds_of(created_from),
        created_before=seconds_of(created_before),
        text=None if q is None else search_text(service.catalogue, q),
        collection=collection,
        deleted=deleted,
    )
    return page_view(
        service.store.images.list_images(wanted, cursor=cursor, limit=limit), image_view
    )


@router.get("/zip", summary="Download pictures as one zip", response_class=StreamingResponse,
            responses=ZIP)  # fmt: skip
def download_images(
    service: Running,
    identity: Viewer,
    id: Annotated[list[str], Query(min_length=1, max_length=MAX_LIMIT)],  # noqa: A002
) -> Response:
    images = [visible_image(service, identity, image_id) for image_id in dict.fromkeys(id)]
    for image in images:
        require_file(service, image)  # once the zip has begun it is too late for an error
    headers = {"Content-Disposition": 'attachment; filename="izograf.zip"'}
    content = zipped(images, service.store.images.read_file)
    return StreamingResponse(content, headers=headers, media_type="application/zip")


@router.post("/delete", summary="Delete pictures; they can be restored for some days")
def delete_images(chosen: shapes.Ids, service: Running, identity: User) -> shapes.Count:
    return shapes.Count(count=deletion.delete_images(service, identity, chosen.ids))


@router.post("/restore", summary="Restore deleted pictures")
def restore_images(chosen: shapes.Ids, service: Running, identity: User) -> shapes.Count:
    owner = identity.visible_owner
    return shapes.Count(count=service.store.images.restore(chosen.ids, owner=owner))


@router.get("/{image_id}", summary="One picture's facts")
def get_image(image_id: str, service: Running, identity: Viewer) -> shapes.Image:
    return image_view(visible_image(service, identity, image_id))


@router.patch("/{image_id}", summary="Mark a picture as a favourite, or not")
def mark_image(
    image_id: str, marks: shapes.Marks, service: Running, identity: User
) -> shapes.Image:
    owner = identity.visible_owner
    return image_view(service.store.images.set_favourite(image_id, marks.favourite, owner=owner))


@router.delete("/{image_id}", status_code=204, summary="Delete a picture; it can be restored")
def delete_image(image_id: str, service: Running, identity: User) -> None:
    image = visible_image(service, identity, image_id)
    deletion.delete_images(service, identity, [image.id])


@router.post("/{image_id}/restore", summary="Restore a deleted picture")
def restore_image(image_id: str, service: Running, identity: User) -> shapes.Image:
    image = visible_image(service, identity, image_id)
    service.store.images.restore([image.id], owner=identity.visible_owner)
    return image_view(image)


@router.post("/{image_id}/verify", status_code=202, summary="Make a picture again and compare")
def verify_image(image_id: str, service: Running, identity: User, response: Response) -> shapes.Job:
    job = orders.verify(service, identity, visible_image(service, identity, image_id))
    response.headers["Location"] = job_url(job.id)
    return job_view(job)


@router.get("/{image_id}/file", summary="The PNG", response_class=Response, responses=PNG)
def read_image(
    image_id: str,
    service: Running,
    identity: Viewer,
    download: Annotated[bool, Query(description="as a file to be saved")] = False,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    image = visible_image(service, identity, image_id)
    headers = {"ETag": f'"{image.sha256}"', "Cache-Control": FOREVER}
    if if_none_match is not None and matches(image.sha256, if_none_match):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = disposition(image, download=download)
    content = service.store.images.read_file(image.sha256)
    return Response(content, headers=headers, media_type="image/png")


def visible_image(service: Service, identity: Identity, image_id: str) -> StoredImage:
    """
    Raises:
        NotFound: there is no such picture, or it is not the caller's.
    """
    return service.store.images.get(image_id, owner=identity.visible_owner)


def require_file(service: Service, image: StoredImage) -> None:
    """
    Raises:
        StorageError: the picture's file is not there.
    """
    if not service.store.files.exists(image.sha256):
        raise StorageError(f"The file of picture {image.id} is missing: restore a backup.")


def matches(sha256: str, if_none_match: str) -> bool:
    """Whether a client that sent this header has the picture (RFC 9110, section 13.1.2)."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in tags or f'"{sha256}"' in tags


def disposition(image: StoredImage, *, download: bool) -> str:
    """The Content-Disposition; names beyond ASCII are written as RFC 6266 asks for."""
    kind, name = "attachment" if download else "inline", f"{file_stem(image)}.png"
    plain = name if name.isascii() else f"image-{image.seed}.png"
    extended = "" if name.isascii() else f"; filename*=UTF-8''{quote(name)}"
    return f'{kind}; filename="{plain}"{extended}'


def seconds_of(moment: datetime | None) -> float | None:
    """Seconds since the epoch; a time without a zone is UTC."""
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
