"""The key manager in the context of GraphQL resolvers."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import httpx
import pytest
import strawberry
from fastapi import Depends, FastAPI
from strawberry.fastapi import GraphQLRouter

from keystead import KeyManager
from keystead.errors import DecryptionError
from keystead.integrations.fastapi import lifespan
from keystead.integrations.strawberry import MaskKeysteadErrors, get_context
from keystead.testing import FakeKMS

CAUSE = "the cause, which no client is told"


@strawberry.type
class Query:
    @strawberry.field
    async def sealed_and_opened(self, info: strawberry.Info, value: str) -> str:
        km = info.context["key_manager"]
        assert isinstance(km, KeyManager)
        return str(await km.decrypt_field(await km.encrypt_field(value)))

    @strawberry.field
    async def user(self, info: strawberry.Info) -> str:
        return str(info.context["user"])

    @strawberry.field
    async def broken(self) -> str:
        raise DecryptionError(CAUSE)

    @strawberry.field
    async def refused(self) -> str:
        raise PermissionError("not yours")


async def own_context(keys: Annotated[dict[str, Any], Depends(get_context)]) -> dict[str, Any]:
    return {**keys, "user": "ada"}


async def ask(query: str, **variables: object) -> Any:
    """Return the answer of an application made for one request."""
    km = KeyManager({"fake": FakeKMS().provider("fake")}, default_key_id="app", store="memory://")
    schema = strawberry.Schema(Query, extensions=[MaskKeysteadErrors])
    app = FastAPI(lifespan=lifespan(km))
    app.include_router(GraphQLRouter(schema, context_getter=own_context), prefix="/graphql")
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        answer = await client.post("/graphql", json={"query": query, "variables": variables})
    return answer.json()


async def test_a_resolver_finds_the_manager_beside_the_applications_own_context() -> None:
    answer = await ask("query ($value: String!) { sealedAndOpened(value: $value) user }", value="x")
    assert answer == {"data": {"sealedAndOpened": "x", "user": "ada"}}


async def test_an_error_of_keystead_is_masked_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "strawberry.execution")
    answer = await ask("{ broken }")
    assert answer["errors"][0]["message"] == "The request cannot be processed."
    assert CAUSE not in str(answer)
    assert CAUSE in caplog.text


async def test_other_errors_are_the_applications_own_to_mask() -> None:
    answer = await ask("{ refused }")
    assert answer["errors"][0]["message"] == "not yours"
