"""``qsm-ai keys``: make, list and revoke API keys, on the machine that has the database."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from qsm_ai.api.command_settings import refuse, settings_or_refuse

if TYPE_CHECKING:
    from qsm_ai.access.keys import KeyStore
    from qsm_ai.api.settings import Settings

app = typer.Typer()
keys = typer.Typer(name="keys", help="API keys: create, list, revoke.", no_args_is_help=True)
app.add_typer(keys)

_SPAN = re.compile(r"(\d+)\s*([hdwy])")
_SECONDS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0, "y": 365 * 86400.0}


@keys.command()
def create(
    owner: Annotated[
        str | None,
        typer.Option(help="Whose jobs the key opens; keys of one owner share them.", show_default=False),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            help="Instead of --owner: the subject (sub) at the identity provider, for the same jobs.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="It may see everybody's queue.")] = False,
    expires: Annotated[
        str, typer.Option(metavar="SPAN", help="From now on: 12h, 90d, 4w, 1y, or never.")
    ] = "365d",
) -> None:
    """Make a key. It is shown once, on standard output, and cannot be shown again."""
    from qsm_ai.access.identity import OIDC_OWNER, Role, oidc_owner

    with _store() as store:
        if (owner is None) == (subject is None):
            refuse("Name the owner of the key: give --owner or --subject.")
        if subject is not None:
            issuer = _settings().oidc_issuer
            if issuer is None:
                refuse("--subject needs the identity provider: set QSM_OIDC_ISSUER.")
            owner = oidc_owner(issuer, subject)
        elif owner is not None and owner.startswith(OIDC_OWNER):
            refuse("Such an owner comes from the identity provider: give --subject instead.")
        try:
            key, text = store.create(
                owner or "", name=name, role=Role.ADMIN if admin else Role.USER, lifetime=_lifetime(expires)
            )
        except ValueError as error:
            refuse(f"This cannot be: {error}.")
    until = "never expires" if key.expires_at is None else f"expires on {_day(key.expires_at)}"
    typer.echo(f"The key {key.prefix}… of {key.owner} ({key.role.value}) {until}.", err=True)
    typer.echo("It is shown this once. Send it as 'Authorization: Bearer KEY', or set QSM_API_KEY.", err=True)
    typer.echo(text)


@keys.command("list")
def list_keys(
    owner: Annotated[str | None, typer.Option(help="Only this owner's.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Expired and revoked ones too.")] = False,
) -> None:
    """List keys by their first characters; the keys themselves are not kept."""
    from rich.console import Console
    from rich.table import Table

    with _store() as store:
        now = time.time()
        found = [key for key in store.list(owner) if everything or key.state(now) == "active"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("Key", "Owner", "Role", "State", "Created", "Expires", "Last used", "Name"):
        table.add_column(title, no_wrap=True)
    for key in found:
        table.add_row(
            f"{key.prefix}…", key.owner, key.role.value, key.state(now), _day(key.created_at),
            _day(key.expires_at), _minute(key.last_used_at), key.name,
        )  # fmt: skip
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        # Nobody looks: let no column be cut to the width of a terminal that is not there.
        console.width = 400
    console.print(table)


@keys.command()
def revoke(
    which: Annotated[list[str], typer.Argument(metavar="KEY …", help="As listed, such as qsm_k3f….")],
) -> None:
    """Make keys worth nothing, from their next request on."""
    from qsm_ai.access.keys import NoSuchKeyError

    with _store() as store:
        for given in which:
            try:
                key = store.revoke(given)
            except NoSuchKeyError:
                refuse("There is no such key. `qsm-ai keys list --all` lists all.")
            typer.echo(f"Revoked {key.prefix}… of {key.owner}.")


@contextmanager
def _store() -> Iterator[KeyStore]:
    """The keys in the database that the settings name."""
    from sqlalchemy.exc import SQLAlchemyError

    from qsm_ai.access.keys import KeyStore
    from qsm_ai.jobs.store import JobStore

    settings = _settings()
    folder = settings.data_dir.absolute()
    if settings.database_url is None and not folder.is_dir():
        typer.echo(f"There was no data folder {folder} (QSM_DATA_DIR): it is new.", err=True)
    try:
        jobs = JobStore(settings.database)
        try:
            yield KeyStore(jobs.database)
        finally:
            jobs.close()
    except SQLAlchemyError as error:
        refuse(f"The database fails ({type(error).__name__}). Check QSM_DATABASE_URL and QSM_DATA_DIR.")


def _settings() -> Settings:
    # Whether it may serve is another question: keys are made before the first start too.
    return settings_or_refuse(host="127.0.0.1", published_at=None, access=[])


def _lifetime(span: str) -> float | None:
    if span == "never":
        return None
    match = _SPAN.fullmatch(span.strip().lower())
    if match is None:
        refuse("--expires takes a span such as 12h, 90d, 4w or 1y, or never.")
    return int(match[1]) * _SECONDS[match[2]]


def _day(moment: float | None) -> str:
    return "never" if moment is None else time.strftime("%Y-%m-%d", time.gmtime(moment))


def _minute(moment: float | None) -> str:
    return "never" if moment is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))
