"""`izograf key`: credentials with which programs use the service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from izograf.cli.accounts import ACTOR, opened_store
from izograf.cli.app import app
from izograf.cli.verbs.serve import DatabaseUrl, DataDir
from izograf.schema.errors import NotFound

if TYPE_CHECKING:
    from izograf.store.accounts import ApiKey
    from izograf.store.open import Store

key = typer.Typer(no_args_is_help=True)
app.add_typer(key, name="key", help="Make, list, revoke API keys of the service.")


@key.command()
def create(
    user: Annotated[str, typer.Argument(help="The user whose rights the key has.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make an API key and print it, this once."""
    with opened_store(data_dir, database_url) as store:
        from izograf.service.auth_secrets import digest, make_key

        owner, new = store.accounts.find_user(user), make_key()
        made = store.accounts.create_key(owner.id, name, new.prefix, digest(new.secret))
        store.audit.record(ACTOR, "key.create", made.id, name=owner.name, prefix=new.prefix)
    typer.echo(new.text)
    typer.echo("This is shown only now; send it as Authorization: Bearer KEY.", err=True)


@key.command("list")
def list_keys(data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """List the keys by their prefix; the keys themselves are not kept."""
    with opened_store(data_dir, database_url) as store:
        keys = store.accounts.list_keys()
    for one in keys:
        used = "never used" if one.seen is None else f"last used {_day(one.seen)}"
        state = used if one.revoked is None else f"revoked {_day(one.revoked)}"
        typer.echo(f"{one.prefix}  {one.user.name}  {one.name or '-'}  {state}")
    if not keys:
        typer.echo("There are no keys: make one with izograf key create USER.")


@key.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its prefix (izo_...), or its identifier (key_...).")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key invalid at once, and for good."""
    with opened_store(data_dir, database_url) as store:
        found = _find(store, key)
        store.accounts.revoke_key(found.id)
        store.audit.record(ACTOR, "key.revoke", found.id, name=found.user.name, prefix=found.prefix)
    typer.echo(f"{found.prefix} is revoked.")


def _find(store: Store, text: str) -> ApiKey:
    """The key by identifier, prefix, or the whole of it."""
    for one in store.accounts.list_keys():
        if text == one.id or text.partition(".")[0] == one.prefix:
            return one
    raise NotFound(f"There is no key {text.partition('.')[0][:40]!r}: see izograf key list.")


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))
