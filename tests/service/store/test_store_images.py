"""The gallery's contract, on both databases: files before rows, search, deletion and undo."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from store_support import Clock

from izograf.schema.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    StorageError,
    StoreUnavailable,
)
from izograf.schema.job import StoredImage
from izograf.schema.request import GenerationRequest
from izograf.store.database import Database
from izograf.store.images import ImageFilter, ImageStore
from izograf.store.jobs import JobStore
from izograf.store.open import Store

Request = Callable[..., GenerationRequest]


@pytest.fixture
def finished(store: Store, request_for: Request) -> Callable[..., list[StoredImage]]:
    """finished(owner="ann", num=1, model=..., name=...) -> the pictures of a finished job."""

    def make(owner: str = "ann", num: int = 1, **rest: str) -> list[StoredImage]:
        request = request_for(**rest)
        job = store.jobs.submit(owner, "generate", request)
        claim = store.jobs.claim_next()
        assert claim is not None
        pictures = [
            store.images.stage(
                job, seed=seed, png=f"{job.id} {seed}".encode(), width=64, height=32,
                record={"request": request.to_json(), "note": "\0"}, seconds=0.5,
            )
            for seed in range(num)
        ]  # fmt: skip
        assert store.jobs.finish(job.id, claim[1], pictures)
        return pictures

    return make


def test_what_is_finished_is_shown_and_opens(store: Store, finished: Request) -> None:
    first, second = finished(num=2)
    assert store.images.get(first.id) == first
    assert store.images.read_png(first.id, owner="ann") == f"{first.job_id} 0".encode()
    assert store.images.list_images().items == (second, first)
    for ask in (store.images.get, store.images.read_png):
        with pytest.raises(NotFound):
            ask(first.id, owner="bob")
    with pytest.raises(NotFound):
        store.images.get("../../" + first.sha256)


def test_search(store: Store, finished: Request, clock: Clock) -> None:
    (mountain,) = finished(name="mountain")
    clock.now += 1000
    (tree,) = finished(name="ЁЛКА_100%", model="Russian Scenes")
    (bob,) = finished("bob", name="mountain")
    expected: list[tuple[ImageFilter, list[StoredImage]]] = [
        (ImageFilter(), [mountain, tree, bob]),
        (ImageFilter(owner="ann"), [mountain, tree]),
        (ImageFilter(label="mountain"), [mountain, bob]),
        (ImageFilter(model="Russian Scenes"), [tree]),
        (ImageFilter(job_id=tree.job_id), [tree]),
        (ImageFilter(text="MOUNT"), [mountain, bob]),
        (ImageFilter(text="елка scenes"), [tree]),
        (ImageFilter(text="0%"), [tree]),
        (ImageFilter(text="%"), [tree]),
        (ImageFilter(text="a_100"), []),
        (ImageFilter(text="' OR 1=1 --"), []),
        (ImageFilter(created_from=clock.now - 500), [tree, bob]),
        (ImageFilter(created_before=clock.now - 500), [mountain]),
        (ImageFilter(favourite=True), []),
        (ImageFilter(favourite=False, owner="bob"), [bob]),
    ]
    for wanted, found in expected:
        ids = {image.id for image in store.images.list_images(wanted).items}
        assert ids == {image.id for image in found}, wanted


def test_a_search_finds_the_words_given_with_a_picture(store: Store, request_for: Request) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    store.jobs.claim_next()
    staged = store.images.stage(
        job, seed=3, png=b"png", width=1, height=1, words="Горы, ЁЛКИ \0",
        record={"request": {"condition": {"class": "mountain"}, "towards": {"class": "glacier"}}},
    )  # fmt: skip
    store.jobs.finish(job.id, 1, [staged])
    for term in ("горы", "елки", "glacier mountain", "3"):
        (found,) = store.images.list_images(ImageFilter(text=term)).items
        assert found.id == staged.id
    assert store.images.list_images(ImageFilter(text="море")).items == ()


def test_the_pictures_of_a_strip_come_back_in_its_order(store: Store, request_for: Request) -> None:
    request = request_for(num_images=12, seed=7, towards={"seed": 3})
    job = store.jobs.submit("ann", "generate", request)
    store.jobs.claim_next()
    staged = [
        store.images.stage(
            job, seed=seed, png=b"%d" % i, width=1, height=1, record={"position": i}
        )
        for i, seed in enumerate(request.seeds)
    ]  # fmt: skip
    store.jobs.finish(job.id, 1, staged)
    assert [image.record["position"] for image in store.images.of_job(job.id)] == list(range(12))
    assert store.jobs.events_after(job.id)[-1].data["images"] == [image.id for image in staged]


def test_a_sweep_keeps_what_an_edited_picture_was_made_from(
    store: Store, request_for: Request, clock: Clock
) -> None:
    inputs = {"original": store.files.write(b"sent in"), "mask": store.files.write(b"marks")}
    job = store.jobs.submit("ann", "edit", request_for(), inputs=inputs)
    store.jobs.claim_next()
    made = store.images.stage(job, seed=3, png=b"png", width=1, height=1, record={})
    store.jobs.finish(job.id, 1, [made])
    clock.now += 1e6
    assert store.images.sweep() == 0
    store.images.delete([made.id])
    store.images.purge_deleted(clock.now + 1)
    clock.now += 1e6
    assert store.images.sweep() == 3, "the picture, what it was made from, and the mask"


def test_p3_a_sweep_keeps_what_unfinished_jobs_read(
    store: Store, request_for: Request, clock: Clock
) -> None:
    inputs = {"picture": store.files.write(b"sent in")}
    job = store.jobs.submit("ann", "verify", request_for(), inputs=inputs)
    for _ in ("queued", "running"):
        clock.now += 1e6
        assert store.images.sweep() == 0
        store.jobs.claim_next()
    assert store.images.read_file(inputs["picture"]) == b"sent in"
    store.jobs.finish(job.id, 1, [], result={"verdict": "close"})
    assert store.images.sweep() == 1
    with pytest.raises(StorageError):
        store.images.read_file(inputs["picture"])


@pytest.mark.parametrize(
    "wanted",
    [ImageFilter(text="x" * 201), ImageFilter(label="\0"), ImageFilter(collection="col_1")],
)
def test_p8_a_bad_filter_is_refused(store: Store, wanted: ImageFilter) -> None:
    with pytest.raises(InvalidInput):
        store.images.list_images(wanted)


def test_pages(store: Store, finished: Request) -> None:
    made = [image.id for image in finished(num=5)]
    page = store.images.list_images(limit=2)
    seen = [image.id for image in page.items]
    finished()
    while page.next_cursor is not None:
        page = store.images.list_images(limit=2, cursor=page.next_cursor)
        seen += [image.id for image in page.items]
    assert seen == made[::-1]
    with pytest.raises(InvalidInput):
        store.images.list_images(cursor="job_" + "0" * 26)


def test_favourites(store: Store, finished: Request) -> None:
    first, _ = finished(num=2)
    assert store.images.set_favourite(first.id, True, owner="ann").favourite
    found = store.images.list_images(ImageFilter(favourite=True)).items
    assert [image.id for image in found] == [first.id]
    assert not store.images.set_favourite(first.id, False).favourite
    with pytest.raises(NotFound):
        store.images.set_favourite(first.id, True, owner="bob")


def test_deletion_can_be_undone_until_it_is_purged(
    store: Store, finished: Request, clock: Clock
) -> None:
    first, second = finished(num=2)
    both = [first.id, second.id, "img_" + "0" * 26, "../x"]
    assert store.images.delete(both, owner="bob") == 0
    assert store.images.delete(both, owner="ann") == 2
    assert store.images.delete(both) == 0
    assert store.images.list_images().items == ()
    assert len(store.images.list_images(ImageFilter(deleted=True)).items) == 2
    assert store.images.restore([first.id], owner="bob") == 0
    assert store.images.restore([first.id], owner="ann") == 1
    assert [image.id for image in store.images.list_images().items] == [first.id]
    assert store.images.purge_deleted(clock.now - 3600) == 0
    assert store.images.purge_deleted(clock.now + 1) == 1
    assert store.images.restore([second.id]) == 0
    assert store.files.exists(second.sha256), "files are the sweep's business"
    clock.now += 5000
    assert store.images.sweep(grace=3600) == 1
    assert not store.files.exists(second.sha256)
    assert store.images.read_png(first.id)
    with pytest.raises(InvalidInput):
        store.images.delete(["x"] * 201)


def test_the_sweep_respects_rows_and_the_grace_time(
    store: Store, finished: Request, clock: Clock, request_for: Request
) -> None:
    (shown,) = finished()
    job = store.jobs.submit("ann", "generate", request_for())
    staged = store.images.stage(job, seed=0, png=b"staged", width=1, height=1, record={})
    half = store.files.path(staged.sha256).with_name(".0123.tmp")
    half.write_bytes(b"half")
    os.utime(half, (clock.now, clock.now))
    assert store.images.sweep(grace=3600) == 0
    clock.now += 4000
    assert store.files.write(b"staged") == staged.sha256, "written again: young again"
    assert store.images.sweep(grace=3600) == 1
    assert not half.exists()
    assert store.files.exists(staged.sha256)
    clock.now += 4000
    assert store.images.sweep(grace=3600) == 1
    assert not store.files.exists(staged.sha256)
    assert store.files.exists(shown.sha256)


def test_p3_the_sweep_and_whoever_names_a_file_wait_for_each_other(
    store: Store, impatient: Database, request_for: Request
) -> None:
    """Else a file is deleted after it was found to be there and before its row is."""
    order, sent = request_for(), {"picture": store.files.write(b"sent in")}
    job = store.jobs.submit("ann", "generate", order)
    store.jobs.claim_next()
    staged = store.images.stage(job, seed=0, png=b"staged", width=1, height=1, record={})
    jobs, images = JobStore(impatient, store.files), ImageStore(impatient, store.files)
    for sweeps, waiting in (
        (True, lambda: jobs.finish(job.id, 1, [staged])),
        (True, lambda: jobs.submit("ann", "verify", order, inputs=sent)),
        (False, images.sweep),
    ):
        with store.database.engine.begin() as connection:
            store.files.lock(store.database, connection, shared=not sweeps)
            with pytest.raises(StoreUnavailable, match="locked"):
                waiting()
    assert jobs.finish(job.id, 1, [staged])


def test_pictures_of_equal_content_share_a_file(
    store: Store, clock: Clock, request_for: Request
) -> None:
    pictures = []
    for _ in range(2):
        job = store.jobs.submit("ann", "generate", request_for())
        store.jobs.claim_next()
        one = store.images.stage(job, seed=0, png=b"same", width=1, height=1, record={})
        store.jobs.finish(job.id, 1, [one])
        pictures.append(one)
    assert pictures[0].sha256 == pictures[1].sha256
    store.images.delete([pictures[0].id])
    store.images.purge_deleted(clock.now + 1)
    clock.now += 5000
    assert store.images.sweep() == 0
    assert store.images.read_png(pictures[1].id) == b"same"


def test_writers_of_the_same_picture_do_not_disturb_each_other(store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        names = set(threads.map(lambda _: store.files.write(b"same"), range(40)))
    assert store.files.read(names.pop()) == b"same"
    assert not names


def test_p10_no_text_of_a_client_is_in_a_path(
    store: Store, folder: Path, request_for: Request
) -> None:
    hostile = "../../../evil"
    job = store.jobs.submit(hostile, "generate", request_for(model=hostile, name=hostile))
    store.jobs.claim_next()
    one = store.images.stage(job, seed=0, png=b"x", width=1, height=1, record={"path": hostile})
    store.jobs.finish(job.id, 1, [one])
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    pictures = [path for path in files if not path.name.startswith("izograf.sqlite3")]
    assert pictures == [Path("images", one.sha256[:2], one.sha256[2:4], f"{one.sha256}.png")]


def test_a_picture_of_another_job_is_a_mistake(
    store: Store, finished: Request, request_for: Request
) -> None:
    (foreign,) = finished("bob")
    job = store.jobs.submit("ann", "generate", request_for())
    store.jobs.claim_next()
    with pytest.raises(ValueError, match="another job"):
        store.jobs.finish(job.id, 1, [foreign])


def test_a_damaged_gallery_says_so(store: Store, finished: Request) -> None:
    (one,) = finished()
    store.files.path(one.sha256).unlink()
    with pytest.raises(StorageError, match="restore a backup"):
        store.images.read_png(one.id)


def test_collections(store: Store, finished: Request) -> None:
    first, second, third = finished(num=3)
    (foreign,) = finished("bob")
    summer = store.collections.create("ann", " summer ")
    assert (summer.name, summer.num_images) == ("summer", 0)
    with pytest.raises(Conflict, match="summer"):
        store.collections.create("ann", "summer")
    store.collections.create("bob", "summer")

    wanted = [first.id, second.id, foreign.id, "img_x"]
    assert store.collections.add("ann", summer.id, wanted).num_images == 2
    assert store.collections.add("ann", summer.id, [second.id, third.id]).num_images == 3
    shown = store.images.list_images(ImageFilter(collection=summer.id)).items
    assert [image.id for image in shown] == [third.id, second.id, first.id]
    store.images.delete([third.id])
    assert store.collections.get("ann", summer.id).num_images == 2
    assert store.collections.remove("ann", summer.id, [first.id]).num_images == 1

    with pytest.raises(NotFound):
        store.collections.get("bob", summer.id)
    with pytest.raises(NotFound):
        store.collections.rename("bob", summer.id, "mine")
    with pytest.raises(InvalidInput):
        store.collections.rename("ann", summer.id, "  ")
    assert store.collections.rename("ann", summer.id, "winter").name == "winter"
    assert [c.name for c in store.collections.list_collections("ann").items] == ["winter"]
    store.collections.delete("ann", summer.id)
    assert store.collections.list_collections("ann").items == ()
    assert store.images.get(second.id) == second


def test_purging_a_picture_takes_it_out_of_collections(
    store: Store, finished: Request, clock: Clock
) -> None:
    (one,) = finished()
    made = store.collections.create("ann", "x")
    store.collections.add("ann", made.id, [one.id])
    store.images.delete([one.id])
    store.images.purge_deleted(clock.now + 1)
    assert store.images.list_images(ImageFilter(collection=made.id, deleted=True)).items == ()
