"""Deleting pictures: one's own, or, as an administrator and noted, somebody else's."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from izograf.schema.errors import NotFound
from izograf.service.access import Identity
from izograf.service.context import Service


def delete_images(service: Service, identity: Identity, image_ids: Collection[str]) -> int:
    """Hides the pictures until they are restored or purged; how many were hidden.

    What is not the caller's is passed over.

    Raises:
        InvalidInput: too many at once.
    """
    count = service.store.images.delete(image_ids, owner=identity.visible_owner)
    if count and identity.visible_owner is None:
        for owner, number in _others(service, identity, image_ids).items():
            service.store.audit.record(identity.name, "image.delete", owner, count=number)
    return count


def _others(service: Service, identity: Identity, image_ids: Collection[str]) -> dict[str, int]:
    """Owner -> how many of these pictures, of everybody but the caller."""
    found: dict[str, int] = {}
    for image_id in image_ids:
        with suppress(NotFound):
            owner = service.store.images.get(image_id).owner
            if owner != identity.owner:
                found[owner] = found.get(owner, 0) + 1
    return found
