"""``keystead migrate``: the schema of the store."""

from __future__ import annotations

from typing import Annotated

import typer

from keystead.cli.frame import Call, command, say, wrong_usage
from keystead.cli.render import Outcome
from keystead.manager.configured import store_url
from keystead.manager.installation import is_sqlite

Role = Annotated[str, typer.Option("--app-role", metavar="NAME", help="With --roles: what the application runs as.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "migrate")(migrate)


def migrate(
    call: Call,
    *,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements and touch nothing.")] = False,
    roles: Annotated[bool, typer.Option("--roles", help="Print the grants of PostgreSQL roles.")] = False,
    app_role: Role = "keystead_app",
    migrate_role: Annotated[
        str | None, typer.Option("--migrate-role", metavar="NAME", help="With --roles: what runs `keystead migrate`.")
    ] = None,
    archive_role: Annotated[
        str | None, typer.Option("--archive-role", metavar="NAME", help="With --roles: what runs `audit archive`.")
    ] = None,
) -> Outcome:
    """Bring the store's tables to this release's form; it may be run again at any time."""
    from keystead.manager.schema import grants, migration_sql
    from keystead.manager.schema import migrate as migrate_schema

    if sql and roles:
        wrong_usage("--sql and --roles print different things; give one")
    loaded = call.settings()
    url, schema = store_url(loaded), loaded.settings.schema_name
    if roles:
        if is_sqlite(url):
            say("these are for a store on PostgreSQL; this one is an SQLite file, which has no roles")
        text = grants(app_role, migrate_role, archive_role, schema)
        return Outcome({"sql": text}, text.rstrip())
    if sql:
        text = migration_sql(url, schema)
        return Outcome({"sql": text}, text.rstrip())
    revision = migrate_schema(url, schema)
    return Outcome({"revision": revision}, f"the store's schema is at revision {revision}")
