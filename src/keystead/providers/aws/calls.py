"""A call to AWS KMS as every part of its provider makes it."""

from __future__ import annotations

from typing import Any, Final

from keystead.errors import ProviderConnectionError
from keystead.ports import Clock
from keystead.providers.aws.clients import BOTO3, Answer, AwsClients
from keystead.providers.aws.config import AWSKMSConfig
from keystead.providers.aws.errors import Failure
from keystead.providers.aws.keys import require_same_key
from keystead.providers.workers import Workers

LARGEST: Final = 4096
"""What one call encrypts, signs or makes a MAC of, at most."""


class AwsCalls:
    """Makes calls in worker threads and raises Keystead's errors for what fails.

    Raises:
        MissingDependencyError: boto3 is not installed.
    """

    def __init__(self, config: AWSKMSConfig, clock: Clock) -> None:
        BOTO3.require()
        self._config = config
        self._clock = clock
        self._workers = Workers("aws", threads=config.max_connections)
        self._clients = AwsClients(config, clock)

    async def _ask(self, operation: str, needs: tuple[str, ...] = (), /, **parameters: Any) -> Answer:
        """Return the answer to one request, which has ``needs`` in it."""
        answer = await self._try(operation, **parameters)
        if isinstance(answer, Failure):
            raise answer.error()
        for name in needs:
            if name not in answer:
                raise ProviderConnectionError(
                    f"what answers at the endpoint of AWS KMS left {name} out; is it AWS KMS?"
                )
        return answer

    async def _ask_key(self, operation: str, needs: tuple[str, ...], /, **parameters: Any) -> Answer:
        """Return the answer to one request, which has ``needs`` in it and names the key that ``KeyId`` asks."""
        answer = await self._ask(operation, ("KeyId", *needs), **parameters)
        require_same_key(parameters["KeyId"], answer["KeyId"])
        return answer

    async def _try(self, operation: str, /, **parameters: Any) -> Answer | Failure:
        """Return the answer to one request, or why there is none."""
        action = "".join(part.capitalize() for part in operation.split("_"))
        return await self._workers.run(lambda: self._clients.ask(operation, action, parameters))

    async def credential_method(self) -> str | None:
        """Return how boto3 found the credentials: ``env``, ``shared-credentials-file``, ``iam-role``... or None."""
        return await self._workers.run(self._clients.credential_method)

    async def aclose(self) -> None:
        """End the threads and close the connections; idempotent. Later calls raise ``SystemShutdownError``."""
        self._workers.close()
        self._clients.close()
