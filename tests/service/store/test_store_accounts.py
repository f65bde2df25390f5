"""Accounts, audit log, settings and registered models, on both databases."""

from __future__ import annotations

import dataclasses
from hashlib import sha256

import pytest
from store_support import Clock

from izograf.schema.card import ModelCard
from izograf.schema.errors import Conflict, InvalidInput, NotFound
from izograf.store.accounts import Role
from izograf.store.open import Store

TOKEN, OTHER = (sha256(text).hexdigest() for text in (b"token", b"other"))


def test_roles_are_ordered() -> None:
    assert [role.may(Role.ENGINEER) for role in Role] == [False, False, True, True]
    assert all(Role.ADMIN.may(role) for role in Role)


def test_users(store: Store) -> None:
    accounts = store.accounts
    ann = accounts.create_user(" Ann ", Role.ADMIN, "$argon2id$...")
    assert (ann.name, ann.role, ann.disabled) == ("ann", Role.ADMIN, None)
    assert accounts.find_user("ANN") == accounts.get_user(ann.id) == ann
    with pytest.raises(Conflict, match="aNN"):
        accounts.create_user("aNN", Role.USER, "x")
    bob = accounts.create_user("Bob", Role.USER, "x")
    assert accounts.list_users() == (ann, bob)
    for name in ("eve", "\N{SNOWMAN}"):
        with pytest.raises(NotFound):
            accounts.find_user(name)
    with pytest.raises(InvalidInput):
        accounts.find_user("\0")
    with pytest.raises(NotFound):
        accounts.get_user("usr_x")


def test_the_last_administrator_stays(store: Store) -> None:
    accounts = store.accounts
    ann = accounts.create_user("ann", Role.ADMIN, "x")
    bob = accounts.create_user("bob", Role.USER, "x")
    for change in (
        lambda: accounts.set_role(ann.id, Role.USER),
        lambda: accounts.disable_user(ann.id),
    ):
        with pytest.raises(Conflict, match="last administrator"):
            change()
    assert accounts.get_user(ann.id) == ann
    accounts.set_role(bob.id, Role.ADMIN)
    accounts.disable_user(ann.id)
    accounts.enable_user(ann.id)
    accounts.set_role(ann.id, Role.VIEWER)
    assert accounts.get_user(ann.id).role is Role.VIEWER


def test_sessions_end_when_they_should(store: Store, clock: Clock) -> None:
    accounts = store.accounts
    ann = accounts.create_user("ann", Role.USER, "x")

    def log_in() -> None:
        accounts.revoke_session(TOKEN)
        accounts.create_session(ann.id, TOKEN, expires=clock.now + 100)
        session = accounts.find_session(TOKEN)
        assert session is not None
        assert session.user == accounts.get_user(ann.id)

    log_in()
    assert accounts.find_session(OTHER) is None
    accounts.extend_session(TOKEN, expires=clock.now + 500)
    clock.now += 200
    assert accounts.find_session(TOKEN) is not None
    clock.now += 400
    assert accounts.find_session(TOKEN) is None, "expired"
    assert accounts.purge_sessions() == 1
    log_in()
    accounts.revoke_session(TOKEN)
    assert accounts.find_session(TOKEN) is None, "revoked"
    log_in()
    accounts.set_password(ann.id, "y")
    assert accounts.find_session(TOKEN) is None, "the password changed"
    log_in()
    assert accounts.revoke_sessions(ann.id) == 1
    log_in()
    accounts.disable_user(ann.id)
    assert accounts.find_session(TOKEN) is None, "disabled"
    with pytest.raises(ValueError, match="hexadecimal"):
        accounts.find_session("the token itself")


def test_keys(store: Store) -> None:
    accounts = store.accounts
    ann, bob = (accounts.create_user(name, Role.USER, "x") for name in ("ann", "bob"))
    key = accounts.create_key(ann.id, "laptop", "izo_abcd", TOKEN)
    assert accounts.find_key("izo_abcd") == key
    assert (key.user, key.secret_hash, key.seen) == (ann, TOKEN, None)
    with pytest.raises(Conflict, match="prefix"):
        accounts.create_key(bob.id, "x", "izo_abcd", TOKEN)
    for prefix in ("izo_abce", "", "\0", "\ud800", "x" * 10_000):
        assert accounts.find_key(prefix) is None
    accounts.touch_key(key.id)
    assert accounts.list_keys(ann.id)[0].seen is not None
    with pytest.raises(NotFound):
        accounts.revoke_key(key.id, user_id=bob.id)
    accounts.disable_user(ann.id)
    assert accounts.find_key("izo_abcd") is None
    accounts.enable_user(ann.id)
    accounts.revoke_key(key.id, user_id=ann.id)
    assert accounts.find_key("izo_abcd") is None
    with pytest.raises(NotFound):
        accounts.revoke_key(key.id)
    assert accounts.list_keys()[0].revoked is not None


def test_the_audit_log_holds_no_prompts(store: Store) -> None:
    store.audit.record("ann", "user.create", "bob", role="user", count=1)
    store.audit.record("ann\0", "job.cancel", "job_x" * 100)
    with pytest.raises(ValueError, match="does not hold prompt"):
        store.audit.record("ann", "job.submit", prompt="a secret wish")  # type: ignore[call-arg]
    newest, oldest = store.audit.entries()
    assert (oldest.actor, oldest.action, oldest.subject) == ("ann", "user.create", "bob")
    assert oldest.facts == {"role": "user", "count": 1}
    assert len(newest.subject) == 200
    assert store.audit.entries(before=newest.number) == (oldest,)
    assert store.audit.entries(before=2**80, actor="ann") == (oldest,)
    assert store.audit.purge(oldest.at + 0.0005) == 1
    assert store.audit.entries() == (newest,)


def test_settings(store: Store) -> None:
    store.settings.set("limits", {"queue": 5})
    store.settings.set("limits", {"queue": 7})
    store.settings.set("banner", "Привет")
    assert store.settings.all() == {"limits": {"queue": 7}, "banner": "Привет"}
    store.settings.reset("limits")
    assert set(store.settings.all()) == {"banner"}


def test_models(store: Store) -> None:
    card = ModelCard("scenes", "latent", {}, 64, weights={"weights.safetensors": "a" * 64})
    first = store.models.register(card, "/models/scenes")
    assert (first.version, first.promoted is not None, first.card) == (1, True, card)
    again = store.models.register(dataclasses.replace(card, summary="better words"), "/elsewhere")
    assert (again.version, again.folder, again.card.summary) == (1, "/elsewhere", "better words")
    other = dataclasses.replace(card, weights={"weights.safetensors": "b" * 64})
    second = store.models.register(other, "/models/scenes-2")
    assert (second.version, second.promoted) == (2, None)
    assert store.models.get("scenes").version == 1
    assert store.models.promote("scenes", 2).version == 2
    assert [model.version for model in store.models.list_models()] == [2]
    assert [model.version for model in store.models.versions("scenes")] == [2, 1]
    for name, version in (("scenes", 3), ("cats", None)):
        with pytest.raises(NotFound):
            store.models.get(name, version)
