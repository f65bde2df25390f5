"""The programming interface, `/api/v1` and `/v1`, and the routes for machines beside it."""

from izograf.service.api import (
    accounts,
    collections,
    dialect,
    edits,
    health,
    images,
    imports,
    jobs,
    metrics,
    models,
    status,
    streams,
    styles,
    verification,
)

ROUTERS = (
    health.router,
    metrics.router,
    jobs.router,
    edits.router,
    streams.router,
    images.router,
    collections.router,
    models.router,
    styles.router,
    status.router,
    imports.router,
    verification.router,
    accounts.users,
    accounts.keys,
    accounts.audit,
    dialect.router,
)
