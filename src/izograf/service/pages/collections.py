"""`/collections`: named sets of pictures; opening one is the gallery, filtered."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from izograf.schema.errors import Conflict, InvalidInput
from izograf.service.access import Identity, User, Viewer
from izograf.service.context import Running, Service
from izograf.service.pages.gallery import see
from izograf.service.pages.pictures import Showing, may_change
from izograf.service.pages.rendering import language_of, render
from izograf.store.images import ImageFilter

router = APIRouter(include_in_schema=False)

COVERS = 4
PER_PAGE = 24


@router.get("/collections")
def collections(
    request: Request, service: Running, identity: Viewer, cursor: str | None = None
) -> Response:
    return _page(request, service, identity, cursor=cursor)


def _page(
    request: Request,
    service: Service,
    identity: Identity,
    *,
    cursor: str | None = None,
    problem: str = "",
    typed: str = "",
    renaming: str = "",
) -> Response:
    """The list; after a form that could not be carried out, with what was typed and why."""
    page = service.store.collections.list_collections(identity.owner, cursor=cursor, limit=PER_PAGE)
    showing = Showing(service.catalogue, language_of(request))
    covers = {
        collection.id: showing.many(
            service.store.images.list_images(
                ImageFilter(owner=identity.owner, collection=collection.id), limit=COVERS
            ).items
        )
        for collection in page.items
    }
    return render(
        request,
        "collections.html",
        status=422 if problem else 200,
        collections=page.items,
        covers=covers,
        following=page.next_cursor and f"/collections?cursor={page.next_cursor}",
        problem=problem,
        typed=typed,
        renaming=renaming,
        may_change=may_change(identity),
    )


@router.post("/collections")
def create(
    request: Request, service: Running, identity: User, name: Annotated[str, Form()] = ""
) -> Response:
    try:
        service.store.collections.create(identity.owner, name)
    except (Conflict, InvalidInput) as error:
        return _page(request, service, identity, problem=str(error), typed=name)
    return see("/collections")


@router.post("/collections/{collection_id}/rename")
def rename(
    collection_id: str,
    request: Request,
    service: Running,
    identity: User,
    name: Annotated[str, Form()] = "",
) -> Response:
    try:
        service.store.collections.rename(identity.owner, collection_id, name)
    except (Conflict, InvalidInput) as error:
        return _page(
            request, service, identity, problem=str(error), typed=name, renaming=collection_id
        )
    return see("/collections")


@router.post("/collections/{collection_id}/delete")
def delete(collection_id: str, service: Running, identity: User) -> Response:
    service.store.collections.delete(identity.owner, collection_id)
    return see("/collections")
