"""`izograf serve` with engines made for tests: a quick fake one, a local one that forgets models.

Takes the options of `izograf serve`. In the environment OPS_ENGINE is `quick` or `forgetful`, and
OPS_STEP the seconds of a step of the quick one.
"""

from __future__ import annotations

import os
from dataclasses import replace

from izograf.cli.main import main
from izograf.engine.fake import FakeEngine
from izograf.engine.local import LocalEngine, LocalSettings
from izograf.engine.protocol import Engine
from izograf.service import run
from izograf.service.settings import ServiceSettings


def make_engine(settings: ServiceSettings) -> Engine:
    if os.environ["OPS_ENGINE"] == "quick":
        return FakeEngine(step_seconds=float(os.environ.get("OPS_STEP", "0.001")), size=16)
    local = LocalSettings(devices=settings.devices, precision="fp32", max_model_loads=0)
    return LocalEngine(replace(local, cache_bytes=1))


if __name__ == "__main__":  # a worker of the local engine imports this file once more
    run.make_engine = make_engine
    main()
