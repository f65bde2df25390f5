"""`/api/v1/collections`: named sets of one's own pictures. Their pictures: `images?collection=`."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from izograf.service.access import User, Viewer
from izograf.service.api import shapes
from izograf.service.api.routing import interface_router
from izograf.service.api.views import collection_view, page_view
from izograf.service.context import Running

router = interface_router("/api/v1/collections", "collections")


@router.post("", status_code=201, summary="Make an empty collection")
def create_collection(
    named: shapes.CollectionName, service: Running, identity: User, response: Response
) -> shapes.Collection:
    collection = service.store.collections.create(identity.owner, named.name)
    response.headers["Location"] = f"/api/v1/collections/{collection.id}"
    return collection_view(collection)


@router.get("", summary="List one's collections, newest first")
def list_collections(
    service: Running,
    identity: Viewer,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> shapes.Page[shapes.Collection]:
    collections = service.store.collections
    page = collections.list_collections(identity.owner, cursor=cursor, limit=limit)
    return page_view(page, collection_view)


@router.get("/{collection_id}", summary="One collection")
def get_collection(collection_id: str, service: Running, identity: Viewer) -> shapes.Collection:
    return collection_view(service.store.collections.get(identity.owner, collection_id))


@router.patch("/{collection_id}", summary="Rename a collection")
def rename_collection(
    collection_id: str, named: shapes.CollectionName, service: Running, identity: User
) -> shapes.Collection:
    collections = service.store.collections
    return collection_view(collections.rename(identity.owner, collection_id, named.name))


@router.delete("/{collection_id}", status_code=204, summary="Delete a collection, not its pictures")
def delete_collection(collection_id: str, service: Running, identity: User) -> None:
    service.store.collections.delete(identity.owner, collection_id)


@router.post("/{collection_id}/images", summary="Add pictures to a collection")
def add_images(
    collection_id: str, chosen: shapes.Ids, service: Running, identity: User
) -> shapes.Collection:
    collections = service.store.collections
    return collection_view(collections.add(identity.owner, collection_id, chosen.ids))


@router.post("/{collection_id}/images/remove", summary="Take pictures out of a collection")
def remove_images(
    collection_id: str, chosen: shapes.Ids, service: Running, identity: User
) -> shapes.Collection:
    collections = service.store.collections
    return collection_view(collections.remove(identity.owner, collection_id, chosen.ids))
