"""The queue page shows who is next and what ended last, however many wait."""

from __future__ import annotations

import re

from pages_support import browser
from web_support import MakeService

from izograf.schema.request import GenerationRequest
from izograf.service.access import LOCAL


def test_a_long_queue_shows_its_head_and_what_ended_last(make_service: MakeService) -> None:
    service = make_service()
    service.dispatcher.stop(0)  # type: ignore[attr-defined]
    jobs, condition = service.store.jobs, {"type": "class", "class": "mountain"}

    def submit(seed: int) -> str:
        request = GenerationRequest("scenes", condition, 1, seed)
        return jobs.submit(LOCAL.owner, "generate", request).id

    failed = submit(1111)
    claim = jobs.claim_next()
    assert claim is not None
    assert jobs.fail(failed, claim[1], "Broken", "It broke.")
    for seed in range(2000, 2060):
        submit(seed)
    with browser(service) as page:
        html = page.get("/queue").text
        cards = page.get("/").text
    shown = [int(seed) for seed in re.findall(r"seed (\d+)", html)]
    assert shown == [*range(2000, 2025), 1111]
    assert "It broke." in html
    assert "35 more wait" in html
    assert [int(seed) for seed in re.findall(r"seed (\d+)", cards)][:12] == [*range(2000, 2012)]
