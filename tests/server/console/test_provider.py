"""People sign in at an identity provider, and nobody brings in a login that was not begun in their own browser."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from keystead.config.service import load_service
from keystead.errors import ConfigurationError
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import AUDIENCE, DISCOVERY, TOKEN, FakeIssuer, Page, ec_key, rsa_key
from tests.server.clients import Installation, Node
from tests.server.console.visitors import BASE, Visitor, text_of

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)

CLIENT = "console-of-keystead"
BACK = "/console/sign-in/back"


@pytest.fixture
def provider(clock: FakeClock) -> Iterator[FakeIssuer]:
    """An identity provider, at which ada has logged in."""
    with FakeIssuer(clock) as started:
        started.publish(ec_key(), rsa_key())
        started.user = {"sub": "ada", "groups": ["kms-operators"]}
        yield started


def settings(provider: FakeIssuer, **more: str) -> dict[str, str]:
    return {
        "KEYSTEAD_OIDC_ISSUER": provider.url,
        "KEYSTEAD_OIDC_AUDIENCE": AUDIENCE,
        "KEYSTEAD_OIDC_CLIENT_ID": CLIENT,
        "KEYSTEAD_OIDC_SCOPE_CLAIM": "groups",
        "KEYSTEAD_OIDC_SCOPES": "kms-operators=keyrings:read tokens:write",
        **more,
    }


@pytest.fixture
async def node(installation: Installation, provider: FakeIssuer) -> AsyncIterator[Node]:
    """One node of a service whose people sign in there."""
    async with installation.node(environ=settings(provider)) as started:
        yield started


async def sent_on(visitor: Visitor, then: str = "/console/keyrings") -> str:
    """Return where a browser is led that wants to sign in at the provider."""
    answer = await visitor.get(f"/console/sign-in/provider?next={then}")
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def led_back(where: str) -> str:
    """Log in at the provider, and return the path that it leads back to."""
    async with httpx.AsyncClient() as http:
        back = (await http.get(where)).headers["location"]
    assert back.startswith(f"{BASE}{BACK}?")
    return back.removeprefix(BASE)


async def test_somebody_signs_in_there_and_may_do_what_the_provider_says(node: Node) -> None:
    ada = Visitor(node.app)
    page = await ada.get("/console/sign-in?next=%2Fconsole%2Fkeyrings")
    assert "Sign in with 127.0.0.1" in text_of(page)
    assert 'href="/console/sign-in/provider?next=/console/keyrings"' in page.text
    answer = await ada.get(await led_back(await sent_on(ada)))
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/keyrings")
    assert set(ada.cookies) == {"keystead"}
    assert (await ada.get("/console/keyrings")).status_code == 200
    assert "/console/new-keyring" not in (await ada.get("/console/keyrings")).text
    assert "issuer http://127.0.0.1" in text_of(await ada.get("/console/sessions"))


async def test_what_is_asked_of_the_provider_tells_it_nothing_that_another_could_use(
    node: Node, provider: FakeIssuer
) -> None:
    ada = Visitor(node.app)
    asked = [dict(parse_qsl(urlsplit(await sent_on(ada)).query)) for _ in range(2)]
    for each in asked:
        assert each["redirect_uri"] == f"{BASE}{BACK}"
        assert each["client_id"] == CLIENT
        assert len(each["state"]) == len(each["nonce"]) == len(each["code_challenge"]) == 43
    assert not {asked[0][name] for name in ("state", "nonce", "code_challenge")} & set(asked[1].values())
    assert provider.asked.count(DISCOVERY) <= 2


async def refused(visitor: Visitor, path: str) -> None:
    answer = await visitor.get(path)
    assert answer.status_code == 401
    assert "did not succeed" in text_of(answer)
    assert "keystead" not in visitor.cookies


async def test_a_login_is_finished_by_the_browser_that_began_it_and_once(node: Node) -> None:
    ada, eve = Visitor(node.app), Visitor(node.app)
    back = await led_back(await sent_on(ada))
    await refused(eve, back)
    theirs = await sent_on(eve)
    await refused(eve, back)
    assert (await ada.get(back)).status_code == 303
    del ada.cookies["keystead"]
    await refused(ada, back)
    await refused(ada, await led_back(theirs))
    await refused(Visitor(node.app, cookies={"keystead-login": "bm90IGpzb24="}), back)
    await refused(Visitor(node.app), f"{BACK}?error=access_denied&state=x")
    await refused(Visitor(node.app), BACK)


@pytest.mark.parametrize(
    "user",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": AUDIENCE},
        {"aud": [CLIENT, "other"], "azp": "other"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"sub": None},
        {"sub": ""},
        {"groups": 7},
    ],
    ids=str,
)
async def test_a_token_of_another_login_client_issuer_or_time_is_not_taken(
    node: Node, provider: FakeIssuer, user: Mapping[str, Any]
) -> None:
    provider.user |= user
    ada = Visitor(node.app)
    await refused(ada, await led_back(await sent_on(ada)))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"id_token": 7}', b'{"id_token": "a.b.c"}', b"[" * 100_000],
    ids=lambda body: body[:20],
)
async def test_what_is_no_answer_of_a_provider_signs_nobody_in(node: Node, provider: FakeIssuer, body: bytes) -> None:
    provider.pages[TOKEN] = Page(body)
    ada = Visitor(node.app)
    await refused(ada, await led_back(await sent_on(ada)))


async def test_a_provider_that_is_down_is_told_as_such(node: Node, provider: FakeIssuer) -> None:
    ada = Visitor(node.app)
    back = await led_back(await sent_on(ada))
    provider.pages[DISCOVERY] = Page(json.dumps({"issuer": provider.url}).encode())
    provider.__exit__()
    answer = await ada.get(back)
    assert answer.status_code == 503
    assert "cannot reach the issuer" in text_of(answer)


async def test_a_client_with_a_secret_shows_it_to_the_provider_alone(
    installation: Installation, provider: FakeIssuer
) -> None:
    provider.secret = "s3cret"  # test
    more = {"KEYSTEAD_OIDC_CLIENT_SECRET": provider.secret, "KEYSTEAD_SERVER_URL": "https://keys.example"}
    async with installation.node(environ=settings(provider, **more)) as node:
        ada = Visitor(node.app)
        where = await sent_on(ada)
        assert provider.secret not in where
        assert dict(parse_qsl(urlsplit(where).query))["redirect_uri"] == f"https://keys.example{BACK}"
        async with httpx.AsyncClient() as http:
            back = (await http.get(where)).headers["location"].removeprefix("https://keys.example")
        assert (await ada.get(back)).status_code == 303
        assert set(ada.cookies) == {"__Host-keystead"}


async def test_without_a_client_there_is_no_such_way(installation: Installation) -> None:
    async with installation.node() as node:
        nobody = Visitor(node.app)
        assert "Sign in with" not in text_of(await nobody.get("/console/sign-in"))
        assert (await nobody.get("/console/sign-in/provider")).status_code == 401
        await refused(nobody, f"{BACK}?code=1&state=2")


def test_a_secret_without_a_name_is_refused(provider: FakeIssuer, installation: Installation) -> None:
    environ = settings(provider, KEYSTEAD_OIDC_CLIENT_SECRET="s3cret")  # test
    del environ["KEYSTEAD_OIDC_CLIENT_ID"]
    with pytest.raises(ConfigurationError, match=r"set oidc\.client_id"):
        load_service(environ={**environ, "KEYSTEAD_STORE": installation.store, "KEYSTEAD_KMS": "local:keystead.kek"})
