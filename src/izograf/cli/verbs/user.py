"""`izograf user`: who may log in to the service."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from izograf.cli.accounts import ACTOR, opened_store
from izograf.cli.app import app
from izograf.cli.extras import service_extra
from izograf.cli.verbs.serve import DatabaseUrl, DataDir
from izograf.schema.errors import InvalidInput

if TYPE_CHECKING:
    from izograf.store.accounts import Role

user = typer.Typer(no_args_is_help=True)
app.add_typer(user, name="user", help="Add, list, disable users of the service.")

Name = Annotated[str, typer.Argument(help="The name they log in with.")]
RoleName = Annotated[str, typer.Option("--role", help="viewer, user, engineer or admin.")]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


@user.command()
def add(
    name: Name,
    role: RoleName = "user",
    password_stdin: FromStdin = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Add a user; asks for the password twice."""
    wanted = _role(role)
    hashed = _hashed_password(name, from_stdin=password_stdin)
    with opened_store(data_dir, database_url) as store:
        new = store.accounts.create_user(name, wanted, hashed)
        store.audit.record(ACTOR, "user.create", new.id, name=new.name, role=wanted)
    typer.echo(f"{new.name} may log in as {wanted}.")


@user.command("list")
def list_users(data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """List the users, their roles, and who is disabled."""
    with opened_store(data_dir, database_url) as store:
        users = store.accounts.list_users()
    width = max((len(one.name) for one in users), default=0)
    for one in users:
        since = time.strftime("%Y-%m-%d", time.gmtime(one.created))
        state = "" if one.disabled is None else "  disabled"
        typer.echo(f"{one.name:{width}}  {one.role:8}  since {since}{state}")
    if not users:
        typer.echo("There are no users: add one with izograf user add NAME --role admin.")


@user.command()
def disable(name: Name, data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Close an account at once: its sessions end, its keys are refused."""
    _change(name, data_dir, database_url, disabled=True)
    typer.echo(f"{name} can no longer log in.")


@user.command()
def enable(name: Name, data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Open a disabled account again."""
    _change(name, data_dir, database_url, disabled=False)
    typer.echo(f"{name} may log in again.")


@user.command()
def password(
    name: Name,
    password_stdin: FromStdin = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Set a new password; every session of the user ends."""
    with opened_store(data_dir, database_url) as store:
        found = store.accounts.find_user(name)
        hashed = _hashed_password(name, from_stdin=password_stdin)
        store.accounts.set_password(found.id, hashed)
        store.audit.record(ACTOR, "user.password", found.id, name=found.name)
    typer.echo(f"The password of {found.name} is changed.")


@user.command()
def role(
    name: Name,
    new_role: Annotated[
        str, typer.Argument(metavar="ROLE", help="viewer, user, engineer or admin.")
    ],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Change what a user may do."""
    wanted = _role(new_role)
    with opened_store(data_dir, database_url) as store:
        found = store.accounts.find_user(name)
        store.accounts.set_role(found.id, wanted)
        store.audit.record(ACTOR, "user.role", found.id, name=found.name, role=wanted)
    typer.echo(f"{found.name} is {wanted} now.")


def _change(name: str, data_dir: Path | None, database_url: str | None, *, disabled: bool) -> None:
    with opened_store(data_dir, database_url) as store:
        found = store.accounts.find_user(name)
        change = store.accounts.disable_user if disabled else store.accounts.enable_user
        change(found.id)
        action = "user.disable" if disabled else "user.enable"
        store.audit.record(ACTOR, action, found.id, name=found.name)


def _role(text: str) -> Role:
    with service_extra():
        from izograf.store.accounts import Role

    try:
        return Role(text.casefold())
    except ValueError:
        raise InvalidInput(f"The role must be one of {', '.join(Role)}, got {text!r}.") from None


def _hashed_password(name: str, *, from_stdin: bool) -> str:
    """
    Raises:
        InvalidInput: the password is guessed too easily, or the two typed differ.
    """
    with service_extra():
        from izograf.service.auth_secrets import check_password, hash_password

    if from_stdin:
        chosen = sys.stdin.readline().rstrip("\r\n")
    else:
        chosen = typer.prompt("Password", hide_input=True)
        if chosen != typer.prompt("The same again", hide_input=True):
            raise InvalidInput("The two passwords differ: type the same one twice.")
    check_password(chosen, name)
    return hash_password(chosen)
