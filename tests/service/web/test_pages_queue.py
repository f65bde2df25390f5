"""The queue page shows who is next and what ended last, however many wait."""

from __future__ import annotations

import re

import pytest
from pages_support import browser, make_pictures
from web_support import MakeService

from izograf.schema.request import GenerationRequest
from izograf.service.access import LOCAL
from izograf.service.pages.i18n import Format


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


@pytest.mark.parametrize(("language", "word"), [("en", "estimated"), ("ru", "оценка")])
def test_ended_jobs_tell_their_energy_wherever_they_tell_their_time(
    make_service: MakeService, language: str, word: str
) -> None:
    service = make_service()
    with browser(service, language) as page:
        images = make_pictures(service, page)
        job = service.store.jobs.get(images[0].job_id)
        shown = {
            "/queue": (job.seconds, job.joules),
            f"/jobs/{job.id}/card": (images[0].seconds, images[0].joules),
            f"/compare?job={job.id}": (images[0].seconds, images[0].joules),
        }
        for address, (seconds, joules) in shown.items():
            assert seconds is not None
            assert joules is not None
            written = Format(language)
            text = f"{written.duration(seconds)} · {written.energy(joules)} ({word})"
            assert text in page.get(address).text, address
        total = f"{Format(language).energy(job.joules or 0)} ({word})"
        assert total in page.get("/admin").text
