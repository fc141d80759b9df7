"""A GraphQL service around one mutation of a sample, asked once."""

from __future__ import annotations

from typing import Any

import httpx
import strawberry
from fastapi import FastAPI
from strawberry.fastapi import GraphQLRouter

from keystead import KeyManager
from keystead.integrations.fastapi import lifespan
from keystead.integrations.strawberry import MaskKeysteadErrors, get_context


@strawberry.type
class Query:
    """A schema has to have one."""

    @strawberry.field
    def ready(self) -> bool:
        """Say that it answers."""
        return True


async def ask(key_manager: KeyManager, mutation: type, text: str, **variables: object) -> dict[str, Any]:
    """Return the data that a service with this mutation answers; the manager is closed with it."""
    schema = strawberry.Schema(Query, mutation, extensions=[MaskKeysteadErrors])
    app = FastAPI(lifespan=lifespan(key_manager))
    app.include_router(GraphQLRouter(schema, context_getter=get_context), prefix="/graphql")
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        answer = (await client.post("/graphql", json={"query": text, "variables": variables})).json()
    assert "errors" not in answer, answer
    data: dict[str, Any] = answer["data"]
    return data
