"""A key manager in a FastAPI application: opened and closed with it, given to routes, its errors answered.

::

    app = FastAPI(
        lifespan=lifespan(partial(KeyManager.open, "local:", store="sqlite:///keys.db"), fields=[EMAIL]),
        exception_handlers=exception_handlers,
    )

    @app.get("/people/{id}")
    async def person(id: int, km: Manager) -> Person: ...

Needs the extra ``fastapi``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Final

from keystead.errors import (
    DecryptionError,
    InvalidInputError,
    KMSError,
    MissingDependencyError,
    NotInitializedError,
)
from keystead.fields import Field
from keystead.manager.manager import KeyManager

try:
    from fastapi import Depends, FastAPI, Request
    from fastapi.requests import HTTPConnection
    from fastapi.responses import JSONResponse
except ImportError:
    raise MissingDependencyError("this integration needs FastAPI: pip install 'keystead[fastapi]'") from None

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]
RETRY_AFTER_S: Final = 5

log = logging.getLogger("keystead.integrations")


def lifespan(
    km: KeyManager | Callable[[], KeyManager], inner: Lifespan | None = None, *, fields: Iterable[Field] = ()
) -> Lifespan:
    """Return a lifespan that initialises a key manager with the application, and closes it with it.

    Args:
        km: the manager, or what makes one: a closed manager does not open again, so an application that starts more
            than once in a process, as in tests, needs the latter.
        inner: the application's own lifespan; the manager is open before it begins and until it has ended.
        fields: what to load before the first request, as ``load_fields`` does.
    """
    loaded = tuple(fields)

    @asynccontextmanager
    async def with_manager(app: FastAPI) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            manager = await stack.enter_async_context(km if isinstance(km, KeyManager) else km())
            await manager.load_fields(*loaded)
            app.state.key_manager = manager
            yield None if inner is None else await stack.enter_async_context(inner(app))

    return with_manager


async def key_manager(connection: HTTPConnection) -> KeyManager:
    """Return the application's key manager: a dependency.

    Raises:
        NotInitializedError: the application has no ``lifespan`` of Keystead's, or was not started.
    """
    manager = getattr(connection.app.state, "key_manager", None)
    if not isinstance(manager, KeyManager):
        raise NotInitializedError(
            "the application holds no key manager: FastAPI(lifespan=keystead.integrations.fastapi.lifespan(km)), and "
            "in a test enter `app.router.lifespan_context(app)`; a mounted application has a lifespan of its own"
        )
    return manager


Manager = Annotated[KeyManager, Depends(key_manager)]
"""What a route declares to be given the key manager."""


async def answer(request: Request, error: Exception) -> JSONResponse:
    """Answer an error of Keystead's without telling its cause, which goes to the log ``keystead.integrations``.

    503 with ``Retry-After`` where the same request may succeed later; 400 where a ciphertext does not open or a value
    cannot be taken, since either may come from the client; otherwise 500. 422 is FastAPI's for a body that is not as
    declared, and promises a list of what is wrong.
    """
    code = getattr(error, "code", KMSError.code)
    if getattr(error, "retryable", False):
        log.warning("a request was answered 503: %s", code, exc_info=error)
        return _response(503, "temporarily unavailable", {"Retry-After": str(RETRY_AFTER_S)})
    if isinstance(error, DecryptionError | InvalidInputError):
        log.warning("a request was answered 400: %s", code, exc_info=error)
        return _response(400, "the request cannot be processed")
    log.error("a request was answered 500: %s", code, exc_info=error)
    return _response(500, "internal error")


exception_handlers: Final[dict[int | type[Exception], Callable[[Request, Any], Any]]] = {KMSError: answer}
"""What ``FastAPI(exception_handlers=...)`` takes; combine it with your own by ``|``."""


def _response(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)
