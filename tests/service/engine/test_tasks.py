"""What a job may ask beside pictures: tasks, their inputs and results, and strips."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_support import Clock, MemoryPictures, MemoryQueue, gather, make_job
from hypothesis import given
from hypothesis import strategies as st

from izograf.engine.batching import compatible, next_order
from izograf.engine.dispatcher import Dispatcher
from izograf.engine.fake import ENERGY_METHOD, WATTS, FakeEngine
from izograf.engine.local import LocalEngine, LocalSettings
from izograf.engine.messages import Task
from izograf.engine.picture import draw, fake_picture, png, read_record, verify_fake
from izograf.engine.protocol import EngineEvent, Failed, Finished
from izograf.engine.tasks import TASKS
from izograf.engine.words import SearchWords
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.schema.job import EventKind, Job, Status
from izograf.schema.labels import ClassLabel
from izograf.schema.request import GenerationRequest
from izograf.store.migrate import upgrade
from izograf.store.open import default_url, open_store

SIZE = 8
REQUEST = make_job(1, num_images=3, seed=5).request


def has(kind: type, number: int = 1) -> Callable[[list[EngineEvent]], bool]:
    return lambda events: sum(isinstance(event, kind) for event in events) >= number


def fake_engine(clock: Clock) -> FakeEngine:
    return FakeEngine(clock=clock, sleep=clock.sleep, step_seconds=0.1, num_steps=3, size=SIZE)


@pytest.fixture(params=["fake", "local"])
def engine(request: pytest.FixtureRequest) -> Iterator[FakeEngine | LocalEngine]:
    if request.param == "fake":
        made: FakeEngine | LocalEngine = fake_engine(Clock())
    else:
        made = LocalEngine(LocalSettings(), body="light_worker")
    yield made
    made.close(0)


def ending(engine: FakeEngine | LocalEngine, job: Job, **inputs: bytes) -> EngineEvent:
    engine.submit(job, 1, inputs)
    return gather(engine, lambda events: has(Finished)(events) or has(Failed)(events))[-1]


def test_every_engine_verifies_a_picture(engine: FakeEngine | LocalEngine) -> None:
    picture = fake_picture(REQUEST, 6, size=SIZE)
    done = ending(engine, make_job(1, task="verify"), picture=picture.png)
    assert isinstance(done, Finished)
    assert done.pictures == ()
    assert done.result == {"verdict": "bit-exact", "psnr": None, "remarks": []}


def test_every_engine_edits_a_picture_and_verifies_it_with_its_original(
    engine: FakeEngine | LocalEngine,
) -> None:
    done = ending(engine, make_job(1, task="edit"), original=b"photo", mask=b"mask")
    assert isinstance(done, Finished)
    (picture,) = done.pictures
    told = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("photo", "mask")}
    assert picture.record["edited"] == {"picture": told["photo"], "mask": told["mask"]}
    for number, (files, verdict) in enumerate(
        [({"original": b"photo", "mask": b"mask"}, "bit-exact"), ({}, "cannot"),
         ({"original": b"photo"}, "cannot")], start=2,
    ):  # fmt: skip
        found = ending(engine, make_job(number, task="verify"), picture=picture.png, **files)
        assert isinstance(found, Finished)
        assert found.result["verdict"] == verdict


def test_an_edit_without_a_picture_fails_in_one_sentence(engine: FakeEngine | LocalEngine) -> None:
    failed = ending(engine, make_job(1, task="edit"), mask=b"mask")
    assert isinstance(failed, Failed)
    assert failed.reason == "The job lacks its input 'original'."


def test_an_unknown_task_fails_in_one_sentence(engine: FakeEngine | LocalEngine) -> None:
    failed = ending(engine, make_job(1, task="dream"))
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retry) == ("InvalidInput", False)
    assert failed.reason == f"Unknown task 'dream': known are {', '.join(TASKS)}."


def test_a_task_without_its_input_fails_in_one_sentence(engine: FakeEngine | LocalEngine) -> None:
    failed = ending(engine, make_job(1, task="verify"))
    assert isinstance(failed, Failed)
    assert failed.reason == "The job lacks its input 'picture'."


@pytest.mark.parametrize("sent", [b"", b"text", png(bytes(3 * SIZE * SIZE), SIZE, SIZE)])
def test_what_is_no_picture_of_ours_fails(engine: FakeEngine | LocalEngine, sent: bytes) -> None:
    failed = ending(engine, make_job(1, task="verify"), picture=sent)
    assert isinstance(failed, Failed)
    assert failed.code == "InvalidInput"
    assert "izograf record" in failed.reason


# --- the fake engine's pictures


def test_a_fake_picture_that_was_changed_is_noticed() -> None:
    made = fake_picture(REQUEST, 6, size=SIZE)
    pixels = draw(REQUEST, 6, size=SIZE)
    slightly = png(bytes([pixels[0] ^ 1]) + pixels[1:], SIZE, SIZE, made.record)
    changed = ["the picture was changed after it was made"]
    found = verify_fake(slightly, model="scenes", size=SIZE)
    assert (found["verdict"], found["remarks"]) == ("close", changed)
    inverted = png(bytes(255 - level for level in pixels), SIZE, SIZE, made.record)
    found = verify_fake(inverted, model="scenes", size=SIZE)
    assert (found["verdict"], found["remarks"]) == ("different", changed)
    assert found["psnr"] < 40
    larger = verify_fake(made.png, model="scenes", size=2 * SIZE)
    assert (larger["verdict"], larger["remarks"]) == ("different", ["the size differs"])
    real = png(pixels, SIZE, SIZE, {**made.record, "model_sha256": "ab"})
    assert verify_fake(real, model="scenes", size=SIZE)["verdict"] == "cannot"


@given(st.binary(max_size=200), st.integers(0, 400))
def test_p8_any_bytes_are_verified_or_refused(noise: bytes, at: int) -> None:
    whole = fake_picture(REQUEST, 6, size=2).png
    for sent in (noise, whole[:at], whole[:at] + noise + whole[at:]):
        try:
            assert verify_fake(sent, model="scenes", size=2)["verdict"]
        except InvalidInput:
            continue


def test_a_fake_strip_begins_and_ends_with_the_plain_pictures() -> None:
    job = make_job(1, num_images=5, seed=5, towards={"seed": 90, "class": "sea"})
    clock = Clock()
    (*_, done) = gather(submitted(fake_engine(clock), job), has(Finished))
    assert isinstance(done, Finished)
    assert [picture.record["position"] for picture in done.pictures] == list(range(5))
    pixels = [draw(job.request, 5, size=SIZE, position=i) for i in range(5)]
    end = make_job(1, condition={"type": "class", "class": "sea"}).request
    assert (pixels[0], pixels[-1]) == (draw(REQUEST, 5, size=SIZE), draw(end, 90, size=SIZE))
    assert len(set(pixels)) == 5
    for picture in done.pictures:
        assert read_record(picture.png) == picture.record
        assert verify_fake(picture.png, model="scenes", size=SIZE)["verdict"] == "bit-exact"


def submitted(engine: FakeEngine, job: Job) -> FakeEngine:
    engine.submit(job, 1)
    return engine


def test_a_fake_picture_says_what_made_it() -> None:
    assert b"trainedAlgorithmicMedia" in fake_picture(REQUEST, 6, size=SIZE).png


# --- batches


def test_strips_and_other_tasks_share_no_batch() -> None:
    plain, strip = REQUEST, make_job(2, num_images=2, towards={"seed": 3}).request
    assert compatible(plain, plain)
    assert not compatible(plain, strip)
    assert not compatible(strip, strip)
    tasks = [Task("a", 1, plain), Task("b", 1, plain, "verify"), Task("c", 1, plain)]
    order = next_order(tasks, batch_size=16, mix_requests=True)
    assert [task.job_id for task in order.tasks] == ["a", "c"]
    assert len(next_order(tasks[1:], batch_size=16, mix_requests=True).tasks) == 1


# --- the dispatcher


def run(dispatcher: Dispatcher, queue: MemoryQueue, clock: Clock) -> None:
    for _ in range(200):
        if queue.settled():
            return
        dispatcher.turn(0.05)
        clock.sleep(0.01)
    raise AssertionError("it never ended")


def test_the_dispatcher_reads_inputs_and_keeps_the_result() -> None:
    clock, queue, pictures = Clock(), MemoryQueue(), MemoryPictures()
    pictures.files["the sha"] = fake_picture(REQUEST, 6, size=SIZE).png
    job, lost = (
        make_job(n, task="verify", inputs={"picture": sha})
        for n, sha in ((1, "the sha"), (2, "another sha"))
    )
    for each in (job, lost, make_job(3)):
        queue.submit(each)
    run(Dispatcher(queue, pictures, fake_engine(clock), clock=clock), queue, clock)
    assert queue.rows[job.id].job.result["verdict"] == "bit-exact"
    assert queue.status(lost.id) is Status.FAILED
    assert "another sha is missing" in queue.rows[lost.id].job.reason
    assert queue.status(make_job(3).id) is Status.DONE


def test_a_job_is_charged_only_when_a_worker_took_it_up() -> None:
    clock, queue = Clock(), MemoryQueue()
    jobs = [make_job(n) for n in (1, 2)]
    for job in jobs:
        queue.submit(job)
    Dispatcher(queue, MemoryPictures(), fake_engine(clock), clock=clock).turn(0.05)
    assert [queue.rows[job.id].job.status for job in jobs] == [Status.RUNNING] * 2
    assert [queue.rows[job.id].began for job in jobs] == [True, False]
    queue.requeue_running()
    assert [queue.rows[job.id].deaths for job in jobs] == [1, 0]


def test_a_start_is_noted_before_the_first_step() -> None:
    clock, queue = Clock(), MemoryQueue()
    queue.submit(job := make_job(1))
    dispatcher = Dispatcher(queue, MemoryPictures(), fake_engine(clock), clock=clock)
    dispatcher.turn(0.0)
    assert queue.rows[job.id].began
    assert EventKind.STEP not in queue.kinds(job.id)


def test_verify_through_the_real_store_and_engine_without_models(tmp_path: Path) -> None:
    upgrade(default_url(tmp_path))
    store, clock = open_store(tmp_path), Clock()
    made = store.jobs.submit("anna", "generate", REQUEST)
    dispatcher = Dispatcher(store.jobs, store.images, fake_engine(clock), clock=clock)
    asked = None
    for _ in range(200):
        dispatcher.turn(0.05)
        clock.sleep(0.01)
        if asked is None and (images := store.images.of_job(made.id)):
            inputs = {"picture": images[1].sha256}
            asked = store.jobs.submit("anna", "verify", images_request(images[1].record),
                                      inputs=inputs)  # fmt: skip
        if asked is not None and store.jobs.get(asked.id).status.final:
            break
    assert asked is not None
    done = store.jobs.get(asked.id)
    assert (done.status, done.result["verdict"]) == (Status.DONE, "bit-exact")
    assert done.seconds is not None
    assert done.joules == pytest.approx(WATTS * done.seconds)
    assert done.energy_method == ENERGY_METHOD
    assert store.jobs.events_after(done.id)[-1].data["result"] == done.result
    store.close()


def images_request(record: Any) -> GenerationRequest:
    return GenerationRequest.from_json(record["request"])


# --- words for the search


def write_card(folder: Path, *labels: ClassLabel) -> None:
    folder.mkdir(exist_ok=True)
    card = ModelCard("words", "latent", {}, 64, classes=labels)
    (folder / "card.json").write_text(card.dumps())


def test_a_picture_is_found_by_the_words_of_its_class_in_every_language(tmp_path: Path) -> None:
    model, words = tmp_path / "model", SearchWords()
    write_card(
        model, ClassLabel("sea", {"ru": ("море", "моря")}), ClassLabel("city", {"ru": ("город",)})
    )
    sea = {"type": "class", "class": "sea"}
    assert words(GenerationRequest(str(model), sea)) == "море моря"
    strip = GenerationRequest(str(model), sea, 2, 0, {}, {"class": "city"})
    assert words(strip) == "море моря город"
    assert words(GenerationRequest(str(model), {"type": "class", "class": "moon"})) == ""
    assert words(GenerationRequest(str(model))) == ""


def test_a_card_is_read_again_when_it_changed_and_may_be_gone(tmp_path: Path) -> None:
    model, words = tmp_path / "model", SearchWords()
    request = GenerationRequest(str(model), {"type": "class", "class": "sea"})
    assert words(request) == ""
    write_card(model, ClassLabel("sea", {"ru": ("море",)}))
    assert words(request) == "море"
    (model / "card.json").write_text(json.dumps({"version": 1}))
    assert words(request) == ""
    assert words(GenerationRequest("\0", {"type": "class", "class": "sea"})) == ""
