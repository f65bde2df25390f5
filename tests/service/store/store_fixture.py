"""A small store of each release, kept as SQL: made once by that release's own code.

`python store_fixture.py` writes the fixtures of the current revision, and refuses to replace any:
a released schema does not change.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from izograf.schema.card import ModelCard
from izograf.schema.job import Status
from izograf.schema.request import GenerationRequest
from izograf.store.accounts import Role
from izograf.store.images import ImageFilter
from izograf.store.migrate import newest_revision, upgrade
from izograf.store.open import Store, default_url, open_store

FOLDER = Path(__file__).parent / "fixtures"
ORDER = GenerationRequest("scenes", {"type": "class", "class": "mountain"}, 2, 7, {"steps": 18})
METHOD = "estimated: by hand"
TOKEN = sha256(b"token").hexdigest()


def populate(store: Store) -> None:
    """One of everything, through the public interface."""
    ann = store.accounts.create_user("ann", Role.ADMIN, "$argon2id$not-a-real-hash")
    store.accounts.create_session(ann.id, TOKEN, expires=4e9)
    store.accounts.create_key(ann.id, "laptop", "izo_abcd", TOKEN)
    done = store.jobs.submit("ann", "generate", ORDER)
    store.jobs.claim_next()
    store.jobs.record_step(done.id, 1, 1, 18, b"preview")
    pictures = [
        store.images.stage(
            done, seed=seed, png=b"%d" % seed, width=64, height=64, seconds=0.5,
            joules=1.0, energy_method=METHOD,
            record={"request": ORDER.to_json(), "seed": seed},
        )
        for seed in ORDER.seeds
    ]  # fmt: skip
    store.jobs.finish(
        done.id, 1, pictures, seconds=1.0, joules=2.0, energy_method=METHOD, result={"pictures": 2}
    )
    store.images.set_favourite(pictures[0].id, True)
    summer = store.collections.create("ann", "лето")
    store.collections.add("ann", summer.id, [pictures[0].id])
    inputs = {"picture": pictures[0].sha256}
    running = store.jobs.submit("ann", "verify", ORDER, inputs=inputs)
    store.jobs.claim_next()
    store.jobs.began(running.id, 1)
    store.jobs.record_step(running.id, 1, 1, 18, b"preview")
    for owner in ("ann", "ann", "bob"):
        store.jobs.submit(owner, "generate", ORDER, idempotency_key=f"{owner}'s key; \\")
        store.jobs.num_queued()
    store.settings.set("limits", {"queue": 7})
    store.audit.record("ann", "user.create", "ann", role="admin")
    card = ModelCard("scenes", "latent", {}, 64, weights={"weights.safetensors": "a" * 64})
    store.models.register(card, "/models/scenes")


def check(store: Store, revision: str = "") -> None:
    """That everything `populate` put in is there and works on; a `revision` had less to keep."""
    method = "" if revision == "revision_0001" else METHOD
    counts = store.jobs.count_by_status()
    assert {k: v for k, v in counts.items() if v} == {
        Status.QUEUED: 2, Status.RUNNING: 1, Status.DONE: 1,
    }  # fmt: skip
    images = store.images.list_images(ImageFilter(text="mountain")).items
    assert [image.seed for image in images] == [8, 7]
    (summer,) = store.collections.list_collections("ann").items
    assert (summer.name, summer.num_images) == ("лето", 1)
    assert store.images.list_images(ImageFilter(favourite=True)).items == images[1:]
    (session,) = [store.accounts.find_session(TOKEN)]
    assert session is not None
    assert session.user.role is Role.ADMIN
    key = store.accounts.find_key("izo_abcd")
    assert key is not None
    assert key.user == session.user
    assert store.settings.all() == {"limits": {"queue": 7}}
    assert [entry.action for entry in store.audit.entries()] == ["user.create"]
    assert store.models.get("scenes").card.name == "scenes"

    (done,) = store.jobs.list_jobs(status=Status.DONE).items
    assert (done.result, done.seconds, done.joules) == ({"pictures": 2}, 1.0, 2.0)
    assert done.energy_method == images[0].energy_method == method
    (running,) = store.jobs.list_jobs(status=Status.RUNNING).items
    assert (running.task, running.inputs) == ("verify", {"picture": images[1].sha256})
    events = store.jobs.events_after(running.id)
    assert [event.kind for event in events] == ["queued", "started", "preview"]
    assert store.jobs.recover().requeued == 1
    again = store.jobs.submit("bob", "generate", ORDER, idempotency_key="bob's key; \\")
    assert again.status is Status.QUEUED
    claims = [store.jobs.claim_next() for _ in range(4)]
    owners = [claim[0].owner for claim in claims if claim is not None]
    assert owners == ["bob", "ann", "ann"]
    store.audit.record("ann", "job.cancel")  # its number comes from a sequence


def main() -> None:
    from store_postgres import running_server

    stem = FOLDER / f"revision_{newest_revision()}"
    targets = {kind: Path(f"{stem}.{kind}.sql") for kind in ("sqlite", "postgresql")}
    if any(path.exists() for path in targets.values()):
        sys.exit("The fixtures of this revision exist: a released schema does not change.")
    with tempfile.TemporaryDirectory() as folder, running_server() as server:
        for kind, target in targets.items():
            url = default_url(Path(folder)) if kind == "sqlite" else server.create("fixture")
            upgrade(url)
            store = open_store(Path(folder), url)
            populate(store)
            store.close()
            if kind == "sqlite":
                with sqlite3.connect(Path(folder) / "izograf.sqlite3") as connection:
                    target.write_text("\n".join(connection.iterdump()) + "\n")
                continue
            dump = [
                server.programs / "pg_dump",
                "--inserts",
                "--no-owner",
                url.replace("+psycopg", ""),
            ]
            text = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
            # commands of psql, not of the server, and settings that newer servers do not know
            lines = [line for line in text.splitlines() if not line.startswith(("\\", "--"))]
            target.write_text("\n".join(line for line in lines if line) + "\n")


if __name__ == "__main__":
    main()
