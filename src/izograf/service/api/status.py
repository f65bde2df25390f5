"""`/api/v1/status`: the queue and its workers."""

from __future__ import annotations

from izograf import __version__
from izograf.service.access import Viewer
from izograf.service.api import shapes
from izograf.service.api.routing import interface_router
from izograf.service.api.views import worker_view
from izograf.service.context import Running

router = interface_router("/api/v1/status", "status")


@router.get("", summary="How many jobs there are, and how the workers are")
def get_status(service: Running, identity: Viewer) -> shapes.ServiceStatus:
    jobs = service.store.jobs
    return shapes.ServiceStatus(
        version=__version__,
        accepting=service.dispatcher.alive,
        jobs={str(status): count for status, count in jobs.count_by_status().items()},
        your_queued=jobs.num_queued(identity.owner),
        workers=[worker_view(worker) for worker in service.engine.health()],
    )
