from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from keystead.providers.vault.provider import VaultKMSProvider
from keystead.testing import FaultProxy
from tests.providers.vault.making import Making
from tests.providers.vault.not_of_keystead import NOT_OF_KEYSTEAD
from tests.services.kubernetes import ACCOUNT, NAMESPACE, TokenReviews, issuer, token_reviews
from tests.services.openbao import OpenBao

__all__ = ["issuer", "token_reviews"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, of the tests on Keystead's own server, those of what it does not have."""
    absent = [item for item in items if isinstance(item, pytest.Function) and is_absent(item)]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


def is_absent(item: pytest.Function) -> bool:
    """Whether a test is of what the server that it is for does not have."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return params.get("bao") == "keystead" and (
        item.originalname in NOT_OF_KEYSTEAD or "xchacha20-poly1305" in params.values()
    )


@pytest.fixture(params=["openbao", "keystead"])
def bao(request: pytest.FixtureRequest) -> OpenBao:
    """The server."""
    server: OpenBao = request.getfixturevalue("own_openbao" if request.param == "openbao" else "keystead_server")
    return server


@pytest.fixture
def proxy(bao: OpenBao) -> Iterator[FaultProxy]:
    """What stands in front of the server in these tests: it counts requests, and has faults."""
    bao.proxy.requests.clear()
    yield bao.proxy
    bao.proxy.heal()


@pytest.fixture
async def making(bao: OpenBao, proxy: FaultProxy) -> AsyncIterator[Making]:
    """Makes providers of the server behind the proxy, and closes them."""
    made = Making(bao, proxy)
    yield made
    proxy.heal()
    await made.aclose()


@pytest.fixture
def provider(making: Making) -> VaultKMSProvider:
    """A provider with a token that may do everything with every key, and make none."""
    return making.provider()


@pytest.fixture(scope="session")
def kubernetes(own_openbao: OpenBao, token_reviews: TokenReviews) -> str:
    """The mount of a Kubernetes auth method with the role ``web``, whose cluster is a stand-in."""
    bao = own_openbao
    mount = bao.enable("kubernetes")
    api = {"kubernetes_host": token_reviews.url, "kubernetes_ca_cert": token_reviews.ca, "disable_local_ca_jwt": True}
    bao.do("POST", f"auth/{mount}/config", api)
    bound = {"bound_service_account_names": [ACCOUNT], "bound_service_account_namespaces": [NAMESPACE]}
    role = {**bound, "audience": "keystead", "token_policies": bao.user_policy, "token_ttl": "1h"}
    bao.do("POST", f"auth/{mount}/role/web", role)
    return mount
