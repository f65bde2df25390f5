"""What every route works with: the parts of one running service."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request

from izograf.engine.protocol import Engine
from izograf.service.catalogue import Catalogue
from izograf.service.hub import EventHub
from izograf.service.limits import LoginAttempts
from izograf.service.metrics import Metrics
from izograf.service.settings import ServiceSettings
from izograf.store.open import Store


class DispatcherPort(Protocol):
    """What routes need of `engine.dispatcher.Dispatcher`."""

    @property
    def alive(self) -> bool: ...

    def wake(self) -> None: ...

    def cancel(self, job_id: str) -> None: ...

    def hurry(self) -> None: ...


@dataclass(frozen=True)
class Service:
    """Everything that lives as long as the process. `clock` gives seconds since the epoch."""

    settings: ServiceSettings
    store: Store
    catalogue: Catalogue
    engine: Engine
    dispatcher: DispatcherPort
    hub: EventHub
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], float] = field(default=time.time)
    login_attempts: LoginAttempts = field(default_factory=LoginAttempts)


async def service_of(request: Request) -> Service:
    """The service this request came to."""
    return cast(Service, request.app.state.service)


Running = Annotated[Service, Depends(service_of)]
