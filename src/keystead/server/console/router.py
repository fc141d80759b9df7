"""The console's pages, put together, and added to the application."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from keystead.errors import KeyNotFoundError
from keystead.server.console import approvals, audit, devices, health, jobs, keyrings, overview, tokens, transit, wishes
from keystead.server.console.answering import Room
from keystead.server.console.pages import Page, Shown
from keystead.server.console.sign_in import ways_in
from keystead.server.console.visits import Visit
from keystead.server.rest.paths import register_names

PREFIX: Final = "/console"
PAGES: Final = [
    *overview.PAGES,
    *keyrings.PAGES,
    *transit.PAGES,
    *devices.PAGES,
    *jobs.PAGES,
    *wishes.PAGES,
    *audit.PAGES,
    *tokens.PAGES,
    *approvals.PAGES,
    *health.PAGES,
]
DEEDS: Final = [
    *keyrings.DEEDS,
    *transit.DEEDS,
    *devices.DEEDS,
    *jobs.DEEDS,
    *wishes.DEEDS,
    *audit.DEEDS,
    *tokens.DEEDS,
    *approvals.DEEDS,
    *health.DEEDS,
]


def add_console(app: FastAPI) -> None:
    """Add the pages and what is done from them."""
    register_names()
    room = Room(PAGES)
    for path, method, answer in ways_in(room):
        app.add_route(path, answer, [method], include_in_schema=False)
    for deed in DEEDS:
        app.add_route(deed.path, room.preview(deed), ["GET"], include_in_schema=False)
        app.add_route(deed.path, room.deed(deed), ["POST"], include_in_schema=False)
    for page in PAGES:
        app.add_route(page.path, room.page(page), ["GET"], include_in_schema=False)
    app.mount(f"{PREFIX}/static", StaticFiles(packages=[("keystead.server.console", "static")]))
    absent = Page(f"{PREFIX}/{{path:path}}", None, _absent, is_of_store=False)
    app.add_route(absent.path, room.page(absent), ["GET"], include_in_schema=False)


async def _absent(visit: Visit) -> Shown:
    raise KeyNotFoundError("the console has no such page")
