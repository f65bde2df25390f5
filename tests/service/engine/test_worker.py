"""What a worker computes with real, tiny models: in this process, and in a spawned one."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_support import gather, make_job
from PIL import Image
from tiny_models import save_tiny_model

from izograf.engine.batching import compose
from izograf.engine.local import LocalEngine, LocalSettings
from izograf.engine.messages import WorkerSettings
from izograf.engine.protocol import (
    EngineEvent,
    EnginePicture,
    Failed,
    Finished,
    OriginalFiles,
    Started,
    Stepped,
    Stopped,
    WorkerDied,
)
from izograf.engine.worker import ModelCache, TorchRenderer, memory_errors, mixed_batch, sheet
from izograf.generators.render import (
    CLOSE_PSNR,
    Picture,
    read_png,
    render,
    save_png,
    verify,
)
from izograf.schema.errors import Cancelled, CardError, InvalidInput, NotFound
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request

Models = tuple[str, str]


def request(model: str, *, seed: int = 0, num_images: int = 1, label: str = "mountain",
            **options: Any) -> GenerationRequest:  # fmt: skip
    return GenerationRequest(model, {"type": "class", "class": label}, num_images, seed, options)


def quiet(step: int, num_steps: int, preview: Callable[[int], bytes], /) -> None:
    pass


def renderer(**chosen: Any) -> TorchRenderer:
    return TorchRenderer(WorkerSettings("cpu", "fp32", **chosen))


def pixels(picture: EnginePicture) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")).astype(int)


# --- in this process


def test_pictures_and_files_are_those_of_the_command_line(
    tiny_models: Models, tmp_path: Path
) -> None:
    asked = request(tiny_models[0], seed=3, num_images=3)
    made, cost = renderer(batch_size=2).render(asked, quiet)
    cache = ModelCache(0, device="cpu", precision="fp32").get(tiny_models[0])
    resolved = resolve_request(cache.generator.card, asked)
    expected = render(cache.generator, resolved, cache.environment, batch_size=2)
    for ours, theirs in zip(made, expected, strict=True):
        save_png(tmp_path / "picture.png", theirs)
        assert ours.png == (tmp_path / "picture.png").read_bytes()
        assert (ours.seed, ours.record) == (theirs.seed, theirs.record)
        assert (ours.width, ours.height) == (16, 16)
    assert cost.seconds > 0


def test_a_job_tells_its_joules_and_how_they_came_about(tiny_models: Models) -> None:
    subject = renderer()
    made, cost = subject.render(request(tiny_models[0]), quiet)
    _, checked = subject.verify(request(tiny_models[0]), made[0].png, quiet)
    for told in (cost, checked):
        assert told.joules is not None
        assert told.joules > 0
        assert told.energy_method.startswith(("measured", "estimated"))


def test_the_energy_of_a_shared_batch_is_split_by_pictures(tiny_models: Models) -> None:
    asked = [request(tiny_models[0], num_images=3), request(tiny_models[0], seed=90, label="sea")]
    three, one = (cost for _, cost in renderer().render_together(asked, quiet))
    assert three.joules is not None
    assert one.joules is not None
    assert three.joules == pytest.approx(3 * one.joules)
    assert one.joules > 0
    assert (three.seconds, three.energy_method) == (one.seconds, one.energy_method)


def test_what_cannot_be_verified_costs_nothing(tiny_models: Models) -> None:
    subject = renderer()
    made, _ = subject.render(request(tiny_models[0]), quiet)
    result, cost = subject.verify(request("no-such-model"), made[0].png, quiet)
    assert result["verdict"] == "cannot"
    assert (cost.seconds, cost.joules) == (0, None)


def test_p7_a_picture_from_the_engine_verifies(tiny_models: Models, tmp_path: Path) -> None:
    made, _ = renderer(batch_size=2).render(request(tiny_models[0], num_images=3), quiet)
    loaded = ModelCache(0, device="cpu", precision="fp32").get(tiny_models[0])
    for picture in made:
        (tmp_path / "picture.png").write_bytes(picture.png)
        found = verify(*read_png(tmp_path / "picture.png"), loaded.generator, loaded.environment)
        assert found.verdict == "bit-exact"


def plain_png(colour: str, size: tuple[int, int] = (24, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_p7_an_edited_picture_verifies_with_what_it_began_with(tiny_models: Models) -> None:
    subject = renderer(batch_size=2)
    white = OriginalFiles(plain_png("white"))
    asked = request(tiny_models[0], num_images=3, strength=0.5)
    made, _ = subject.render(asked, quiet, white)
    assert all("edited" in picture.record for picture in made)
    plain, _ = subject.render(asked, quiet)
    assert all((pixels(a) != pixels(b)).any() for a, b in zip(made, plain, strict=True))
    result, _ = subject.verify(asked, made[2].png, quiet, white)
    assert result["verdict"] == "bit-exact"
    for given, sentence in [(None, "made from another picture"), ("black", "the picture given")]:
        files = None if given is None else OriginalFiles(plain_png(given))
        result, _ = subject.verify(asked, made[2].png, quiet, files)
        assert result["verdict"] == "cannot"
        assert sentence in result["remarks"][0]


def test_what_a_black_mask_hides_is_kept(tiny_models: Models) -> None:
    half = Image.new("RGB", (20, 20), "black")
    half.paste("white", (0, 0, 20, 10))
    buffer = io.BytesIO()
    half.save(buffer, "PNG")
    files = OriginalFiles(plain_png("red", (20, 20)), buffer.getvalue())
    (made,), _ = renderer().render(request(tiny_models[0], strength=1.0), quiet, files)
    kept, changed = pixels(made)[10:], pixels(made)[:6]
    assert (kept == (255, 0, 0)).all()
    assert (changed != (255, 0, 0)).any()


def test_p7_pictures_of_a_shared_batch_are_the_same_within_a_grey_level(
    tiny_models: Models, tmp_path: Path
) -> None:
    asked = [
        request(tiny_models[0], seed=3, num_images=2),
        request(tiny_models[0], seed=900, label="sea"),
        request(tiny_models[0], seed=4, num_images=2, label="forest"),
    ]
    subject = renderer()
    together = subject.render_together(asked, quiet)
    for order, (mixed, _) in zip(asked, together, strict=True):
        alone, _ = subject.render(order, quiet)
        for ours, theirs in zip(mixed, alone, strict=True):
            assert ours.seed == theirs.seed
            assert np.abs(pixels(ours) - pixels(theirs)).max() <= 1
            assert ours.record["batch"] == theirs.record["batch"]
            assert ours.record["composition"] == [list(row) for row in compose(asked)]
            (tmp_path / "picture.png").write_bytes(ours.png)
            loaded = ModelCache(0, device="cpu", precision="fp32").get(tiny_models[0])
            seen = verify(*read_png(tmp_path / "picture.png"), loaded.generator, {})
            assert seen.verdict == "bit-exact"


def test_p7_a_shared_batch_can_be_computed_again_from_its_record(tiny_models: Models) -> None:
    asked = [request(tiny_models[0], seed=3), request(tiny_models[0], seed=7, label="sea")]
    made = renderer().render_together(asked, quiet)[1][0][0]
    loaded = ModelCache(0, device="cpu", precision="fp32").get(tiny_models[0])
    again = [
        GenerationRequest(
            tiny_models[0], {"type": "class", "class": label}, 1, seed,
            made.record["request"]["options"],
        )
        for label, seed in made.record["composition"]
    ]  # fmt: skip
    resolved = [resolve_request(loaded.generator.card, order) for order in again]
    repeated: list[Picture] = mixed_batch(loaded, resolved, lambda *_: None)
    assert repeated[1].record["pixels_sha256"] == made.record["pixels_sha256"]


def test_steps_count_through_all_batches_of_a_request(tiny_models: Models) -> None:
    seen: list[tuple[int, int]] = []
    asked = request(tiny_models[0], num_images=5, num_inference_steps=3)
    renderer(batch_size=2).render(asked, lambda step, of, _: seen.append((step, of)))
    assert seen == [(step, 9) for step in range(1, 10)]


def test_previews_show_the_first_pictures_of_their_own_request(tiny_models: Models) -> None:
    shown: list[list[bytes]] = []
    asked = [
        request(tiny_models[0], num_images=2),
        request(tiny_models[0], seed=90, num_images=7, label="sea"),
    ]
    renderer().render_together(
        asked, lambda _step, _of, preview: shown.append([preview(0), preview(1)])
    )
    first, second = (Image.open(io.BytesIO(png)) for png in shown[0])
    assert first.size == (32, 16)
    assert second.size == (32, 32)
    assert shown[0][0] != shown[-1][0]


@pytest.mark.parametrize(("count", "size"), [(1, (128, 64)), (2, (256, 64)), (9, (256, 128))])
def test_a_preview_is_small_whatever_the_pictures(count: int, size: tuple[int, int]) -> None:
    assert Image.open(io.BytesIO(sheet(torch.zeros(count, 3, 256, 512)))).size == size


def test_models_are_kept_up_to_the_ceiling_least_recently_used_first_to_go(
    tiny_models: Models, tmp_path: Path
) -> None:
    third = str(save_tiny_model(tmp_path / "third"))
    size = ModelCache(0, device="cpu", precision="fp32").get(third).num_bytes
    cache = ModelCache(int(2.5 * size), device="cpu", precision="fp32")
    first, second = tiny_models
    kept = cache.get(first)
    cache.get(second)
    assert cache.get(first) is kept
    cache.get(third)
    assert cache.names == (first, third)
    assert cache.loads == 3
    assert size == sum(p.nbytes for p in kept.generator.denoiser.parameters())  # type: ignore[attr-defined]


def test_a_model_replaced_on_disk_is_loaded_again(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "changing", seed=1)
    subject = renderer()
    asked = request(str(folder))
    before = subject.render(asked, quiet)[0][0]
    save_tiny_model(folder, seed=2)
    after = subject.render(asked, quiet)[0][0]
    assert before.record["model_sha256"] != after.record["model_sha256"]
    assert before.png != after.png


def test_a_model_that_does_not_fit_beside_the_others_is_tried_alone(
    tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModelCache(1 << 30, device="cpu", precision="fp32")
    cache.get(tiny_models[0])
    load, tried = cache._load, []

    def tight(name: str, identity: str) -> Any:
        tried.append(cache.names)
        if cache.names:
            raise MemoryError
        return load(name, identity)

    monkeypatch.setattr(cache, "_load", tight)
    cache.get(tiny_models[1])
    assert tried == [(tiny_models[0],), ()]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 4000000000000 bytes."),
    ],
)  # fmt: skip
def test_every_way_of_running_out_of_memory_is_one(error: Exception) -> None:
    with pytest.raises(MemoryError), memory_errors():
        raise error


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(MemoryError), memory_errors():
        torch.empty(1 << 60, dtype=torch.uint8)


def test_other_errors_stay_themselves() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory_errors():
        raise RuntimeError("shape mismatch")


def test_what_the_request_gets_wrong_is_said_as_everywhere(
    tiny_models: Models, tmp_path: Path
) -> None:
    subject = renderer()
    with pytest.raises(NotFound):
        subject.render(request("no-such-model"), quiet)
    with pytest.raises(NotFound):
        subject.render(request(tiny_models[0], label="castle"), quiet)
    with pytest.raises(InvalidInput):
        subject.render(request(tiny_models[0], num_inference_steps=0), quiet)
    broken = save_tiny_model(tmp_path / "broken")
    (broken / "weights.safetensors").write_bytes(b"half a file")
    with pytest.raises(CardError):
        subject.render(request(str(broken)), quiet)


def verified(subject: TorchRenderer, model: str, png: bytes) -> Mapping[str, Any]:
    return subject.verify(request(model), png, quiet)[0]


def test_p7_a_worker_verifies_what_workers_make(tiny_models: Models) -> None:
    subject = renderer(batch_size=2)
    exact = {"verdict": "bit-exact", "psnr": None, "remarks": []}
    plain, _ = subject.render(request(tiny_models[0], num_images=3), quiet)
    (_, (shared, _)) = subject.render_together(
        [request(tiny_models[0], seed=3), request(tiny_models[0], seed=7, label="sea")], quiet
    )
    strip = replace(
        request(tiny_models[0], num_images=3, sampler="ddpm"), towards={"seed": 8, "class": "sea"}
    )
    between, _ = subject.render(strip, quiet)
    for picture in (*plain, *shared, *between):
        assert verified(subject, tiny_models[0], picture.png) == exact


def test_a_worker_says_why_it_cannot_verify(tiny_models: Models) -> None:
    subject = renderer()
    (picture,), _ = subject.render(request(tiny_models[0]), quiet)
    for model, reason in ((tiny_models[1], "has other weights now"), ("gone", "Unknown model")):
        found = verified(subject, model, picture.png)
        assert (found["verdict"], found["psnr"]) == ("cannot", None)
        assert reason in found["remarks"][0]
    with pytest.raises(InvalidInput, match=r"cannot be read|not a picture"):
        verified(subject, tiny_models[0], picture.png[:50])


def test_p4_a_verification_is_stopped_within_a_step(tiny_models: Models) -> None:
    subject, steps = renderer(), []
    (picture,), _ = subject.render(request(tiny_models[0]), quiet)

    def stop(step: int, num_steps: int, preview: Callable[[int], bytes], /) -> None:
        steps.append((step, num_steps, len(preview(0)) > 0))
        raise Cancelled

    with pytest.raises(Cancelled):
        subject.verify(request(tiny_models[0]), picture.png, stop)
    assert steps == [(1, 6, True)]


# --- in a spawned process


def has(kind: type, number: int = 1) -> Callable[[list[EngineEvent]], bool]:
    return lambda events: sum(isinstance(event, kind) for event in events) >= number


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(LocalSettings(devices=("cpu",), precision="fp32", cache_bytes=1))
    yield made
    made.close(0)


def finished(events: list[EngineEvent]) -> Mapping[str, Finished]:
    return {event.job_id: event for event in events if isinstance(event, Finished)}


def test_a_spawned_worker_generates_with_previews(
    engine: LocalEngine, tiny_models: Models, tmp_path: Path
) -> None:
    engine.submit(make_job(1, model=tiny_models[0], seed=5, num_images=4), 1)
    events = gather(engine, has(Finished))
    assert isinstance(events[0], Started)
    steps = [event for event in events if isinstance(event, Stepped)]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6]
    first = next(event for event in steps if event.preview is not None)
    assert first.step <= 2
    assert Image.open(io.BytesIO(first.preview or b"")).size == (32, 32)
    (done,) = finished(events).values()
    assert [picture.seed for picture in done.pictures] == [5, 6, 7, 8]
    loaded = ModelCache(0, device="cpu", precision="fp32").get(tiny_models[0])
    (tmp_path / "picture.png").write_bytes(done.pictures[2].png)
    found = verify(*read_png(tmp_path / "picture.png"), loaded.generator, loaded.environment)
    assert found.psnr > CLOSE_PSNR


def test_p4_a_spawned_worker_stops_within_a_step(engine: LocalEngine, tiny_models: Models) -> None:
    engine.submit(make_job(2, model=tiny_models[0], num_images=16, num_inference_steps=1000), 1)
    gather(engine, has(Stepped, 3))
    engine.cancel(make_job(2).id)
    sent = engine.poll(0)  # steps that were on their way
    after = gather(engine, has(Stopped)) if not has(Stopped)(sent) else []
    assert sum(isinstance(event, Stepped) for event in after) <= 2
    assert not has(Finished)(sent + after)


def test_p2_a_job_run_again_after_its_worker_was_killed_gives_the_same_picture(
    engine: LocalEngine, tiny_models: Models
) -> None:
    job = make_job(3, model=tiny_models[1], num_images=3, num_inference_steps=150)
    engine.submit(job, 1)
    expected = finished(gather(engine, has(Finished)))[job.id]
    engine.submit(job, 2)
    gather(engine, has(Stepped))
    os.kill(engine.process_ids()[0], signal.SIGKILL)
    (died,) = [e for e in gather(engine, has(WorkerDied)) if isinstance(e, WorkerDied)]
    assert died.jobs == ((job.id, 2),)
    engine.submit(job, 3)
    again = finished(gather(engine, has(Finished)))[job.id]
    assert [p.png for p in again.pictures] == [p.png for p in expected.pictures]


def test_a_request_that_cannot_be_carried_out_fails_by_name(
    engine: LocalEngine, tiny_models: Models
) -> None:
    engine.submit(make_job(4, model="no-such-model"), 1)
    engine.submit(make_job(5, model=tiny_models[0], num_inference_steps=-1), 1)
    missing, wrong = [e for e in gather(engine, has(Failed, 2)) if isinstance(e, Failed)]
    assert (missing.code, missing.retry) == ("NotFound", False)
    assert "no-such-model" in missing.reason
    assert (wrong.code, wrong.retry) == ("InvalidInput", False)


def test_p14_memory_is_flat_over_fifty_model_switches(
    engine: LocalEngine, tiny_models: Models
) -> None:
    """The ceiling of one byte keeps only the model in use, so each switch loads it anew."""
    memory: list[float] = []
    for number in range(60):
        job = make_job(100 + number, model=tiny_models[number % 2], num_inference_steps=2)
        engine.submit(job, 1)
        assert finished(gather(engine, has(Finished)))
        while engine.health()[0].busy:
            engine.poll(0.01)
        (worker,) = engine.health()
        assert worker.models == (tiny_models[number % 2],)
        memory.append(worker.memory_bytes / 2**20)
    slope = np.polyfit(range(50), memory[10:], 1)[0]
    assert slope < 0.1, memory
