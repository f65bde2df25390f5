"""`/metrics`: what an operator watches, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from izograf.service.access import Needs
from izograf.service.context import Running
from izograf.store.accounts import Role

router = APIRouter(tags=["health"])


@router.get("/metrics", dependencies=[Depends(Needs(Role.VIEWER))], include_in_schema=False)
def metrics(service: Running) -> Response:
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
