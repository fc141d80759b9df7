"""The key manager in ``info.context`` of a Strawberry schema served by FastAPI, and its errors masked.

::

    schema = strawberry.Schema(query=Query, mutation=Mutation, extensions=[MaskKeysteadErrors])
    app = FastAPI(lifespan=lifespan(km))
    app.include_router(GraphQLRouter(schema, context_getter=get_context), prefix="/graphql")

    # in a resolver
    km = info.context["key_manager"]

``lifespan`` is that of ``keystead.integrations.fastapi``. Needs the extra ``strawberry``.
"""

from __future__ import annotations

from typing import Any

from keystead.errors import KMSError, MissingDependencyError
from keystead.integrations.fastapi import Manager

try:
    from graphql import GraphQLError
    from strawberry.extensions import MaskErrors
except ImportError:
    raise MissingDependencyError("this integration needs Strawberry: pip install 'keystead[strawberry]'") from None


async def get_context(km: Manager) -> dict[str, Any]:
    """Return the context with the key manager in it: a ``context_getter``.

    An application with a context of its own takes this one by ``Depends(get_context)``, and adds to it.
    """
    return {"key_manager": km}


class MaskKeysteadErrors(MaskErrors):
    """Answers Keystead's errors without their text; the log ``strawberry.execution`` has it."""

    def __init__(self) -> None:
        super().__init__(should_mask_error=_is_ours, error_message="The request cannot be processed.")


def _is_ours(error: GraphQLError) -> bool:
    return isinstance(error.original_error, KMSError)
