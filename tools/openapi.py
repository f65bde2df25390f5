"""Writes the OpenAPI document to where a test compares it: python tools/openapi.py [FILE]"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from fastapi import FastAPI

from izograf.engine.fake import FakeEngine
from izograf.service.app import create_app
from izograf.service.run import running_service
from izograf.service.settings import ServiceSettings

SNAPSHOT = Path(__file__).resolve().parent.parent / "tests/service/web/openapi.json"


def dumped(app: FastAPI) -> str:
    """The document as it lies in the repository."""
    return json.dumps(app.openapi(), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SNAPSHOT
    with tempfile.TemporaryDirectory() as folder:
        settings = ServiceSettings(data_dir=Path(folder), grace_seconds=0)
        with running_service(settings, engine=FakeEngine()) as service:
            target.write_text(dumped(create_app(service)), encoding="utf-8")


if __name__ == "__main__":
    main()
