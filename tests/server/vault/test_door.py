"""What every request of Vault's protocol passes: token, tenant, limits, form. As recorded of a live server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from keystead.access.callers import Scope, scopes_of
from keystead.access.transit_scopes import TransitOperation
from keystead.errors import ConflictError, ForbiddenError, KeyNotFoundError, StoreUnavailableError, UnauthenticatedError
from keystead.server.vault import router
from keystead.server.vault.answers import VaultAnswer, VaultRefusalError
from keystead.server.vault.request import VaultPath, VaultRequest, Way
from tests.fakes.clock import FakeClock
from tests.server.clients import Installation, Node
from tests.server.vault.clients import VaultClient

POLICY: Final = "1 error occurred:\n\t* permission denied\n\n"
DENIED: Final = "permission denied"
FIELDS: Final = frozenset({"plaintext"})


async def shown(request: VaultRequest) -> VaultAnswer:
    """Answer with what was asked."""
    return VaultAnswer(data={"name": request.name, "tenant": request.tenant, "verb": request.verb, **request.body})


async def raises(request: VaultRequest) -> VaultAnswer:
    """Raise what the test has put there."""
    raise ERRORS[request.name]


ERRORS: Final[dict[str, Exception]] = {}
TRIED: Final = (
    VaultPath("/transit/encrypt/{name}", write=Way(shown, TransitOperation.ENCRYPT, FIELDS)),
    VaultPath("/transit/keys", list=Way(shown, TransitOperation.LIST)),
    VaultPath(
        "/transit/keys/{name}",
        read=Way(shown, TransitOperation.READ),
        write=Way(shown, TransitOperation.CREATE),
        delete=Way(shown, TransitOperation.DELETE),
    ),
    VaultPath("/transit/raise/{name}", read=Way(raises)),
)


@pytest.fixture
def installation(tmp_path: Path, clock: FakeClock) -> Installation:
    """A KEK, a store of one kind, for nothing here depends on it, and a clock."""
    return Installation(tmp_path, f"sqlite:///{tmp_path}/keys.db", clock)


@pytest.fixture(autouse=True)
def tried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the protocol a few paths that show what comes to an endpoint."""
    monkeypatch.setattr(router, "PATHS", (*TRIED, *router.PATHS))
    yield
    ERRORS.clear()


async def client(node: Node, *scopes: str, tenant: str = "", **headers: str) -> VaultClient:
    """Return a client with a token of its own."""
    made = await node.service.tokens.create("app", scopes_of(scopes or ["transit:*:*"]), tenant=tenant)
    return VaultClient(node.app, "".join(made.text), **headers)


async def test_who_shows_no_good_token_is_denied_whatever_is_asked(node: Node, nobody: VaultClient) -> None:
    good = "".join((await node.service.tokens.create("app", scopes_of(["transit:*:*"]))).text)
    for caller in (nobody, VaultClient(node.app, good + "x"), VaultClient(node.app, "s.unknown")):
        for method, path in [
            ("POST", "transit/encrypt/k"),
            ("GET", "transit/encrypt/k"),
            ("GET", "transit/nope"),
            ("POST", "auth/nope/login"),
            ("GET", "sys/nope"),
            ("GET", "auth/token/lookup-self"),
            ("OPTIONS", "transit/encrypt/k"),
        ]:
            assert await caller.fails(403, method, path) == [DENIED]


async def test_a_token_is_shown_in_either_header(node: Node) -> None:
    text = "".join((await node.service.tokens.create("app", scopes_of(["transit:*:*"]))).text)
    for headers in ({"X-Vault-Token": text}, {"Authorization": f"Bearer {text}"}, {"authorization": f"bearer {text}"}):
        await VaultClient(node.app).gets("POST", "transit/encrypt/k", {}, headers=headers)
    for headers in ({"Authorization": f"Basic {text}"}, {"Authorization": text}, {"X-Vault-Token": f"Bearer {text}"}):
        assert await VaultClient(node.app).fails(403, "POST", "transit/encrypt/k", {}, headers=headers) == [DENIED]


async def test_a_scope_allows_its_operation_on_its_keys_and_nothing_else(node: Node) -> None:
    orders = await client(node, "transit:encrypt:orders-*", "transit:read:orders-eu")
    assert (await orders.gets("POST", "transit/encrypt/orders-eu", {}))["data"]["name"] == "orders-eu"
    assert (await orders.gets("GET", "transit/keys/orders-eu"))["data"]["verb"] == "read"
    for method, path in [
        ("POST", "transit/encrypt/billing"),
        ("GET", "transit/keys/orders-us"),
        ("POST", "transit/keys/orders-eu"),
        ("DELETE", "transit/keys/orders-eu"),
        ("LIST", "transit/keys"),
    ]:
        assert await orders.fails(403, method, path, {}) == [POLICY]
    service = await client(node, Scope.TOKENS_WRITE, Scope.KEYRINGS_WRITE)
    assert await service.fails(403, "POST", "transit/encrypt/orders-eu", {}) == [POLICY]
    await service.gets("GET", "auth/token/lookup-self")


async def test_post_and_put_are_one_and_a_list_may_be_asked_for_by_get(node: Node) -> None:
    app = await client(node)
    for method in ("POST", "PUT"):
        assert (await app.gets(method, "transit/keys/k", {}))["data"]["verb"] == "write"
    assert (await app.gets("LIST", "transit/keys"))["data"]["verb"] == "list"
    assert (await app.gets("GET", "transit/keys", list="true"))["data"]["verb"] == "list"


@pytest.mark.parametrize(
    ("method", "path", "status", "errors"),
    [
        ("GET", "transit/encrypt/k", 405, ["1 error occurred:\n\t* unsupported operation\n\n"]),
        ("DELETE", "transit/encrypt/k", 405, ["1 error occurred:\n\t* unsupported operation\n\n"]),
        ("LIST", "transit/encrypt/k", 404, ["1 error occurred:\n\t* unsupported path\n\n"]),
        ("GET", "transit/nope", 404, ["1 error occurred:\n\t* unsupported path\n\n"]),
        ("POST", "transit/nope/k", 404, ["1 error occurred:\n\t* unsupported path\n\n"]),
        ("GET", "auth/nope/login", 404, ['no handler for route "auth/nope/login". route entry not found.']),
        ("GET", "sys/nope", 404, ["1 error occurred:\n\t* unsupported path\n\n"]),
        ("OPTIONS", "transit/encrypt/k", 400, ["cannot handle internal-only request operation"]),
        ("FROB", "transit/encrypt/k", 405, []),
        ("POST", "transit/encrypt/k/", 400, ["cannot write to a path ending in '/'"]),
        (
            "PATCH",
            "transit/encrypt/k",
            415,
            ["PATCH requires Content-Type of application/merge-patch+json, provided application/json"],
        ),
    ],
)
async def test_what_there_is_not_is_told_as_vault_does(
    node: Node, method: str, path: str, status: int, errors: list[str]
) -> None:
    body: dict[str, str] | None = {} if method == "PATCH" else None
    assert await (await client(node)).fails(status, method, path, body) == errors


async def test_a_head_of_a_key_has_no_body(node: Node) -> None:
    assert (await (await client(node)).send("HEAD", "transit/keys/k")).status_code == 405


async def test_a_namespace_is_the_tenant_of_the_token_and_no_other(node: Node) -> None:
    north, default = await client(node, tenant="north"), await client(node)
    for headers in ({}, {"X-Vault-Namespace": ""}, *({"X-Vault-Namespace": each} for each in ("north", "/north/"))):
        data = (await north.gets("POST", "transit/encrypt/k", {}, headers=headers))["data"]
        assert data["tenant"] == "north"
    for headers in ({}, {"X-Vault-Namespace": ""}, {"X-Vault-Namespace": "/"}, {"X-Vault-Namespace": "root"}):
        assert (await default.gets("POST", "transit/encrypt/k", {}, headers=headers))["data"]["tenant"] == ""
    for caller, named in [(north, "south"), (north, "root"), (north, "North"), (north, "north/x"), (default, "north")]:
        given = {"X-Vault-Namespace": named}
        assert await caller.fails(403, "POST", "transit/encrypt/k", {}, headers=given) == [POLICY]
        assert await caller.fails(403, "GET", "auth/token/lookup-self", headers=given) == [POLICY]


async def test_a_namespace_is_text_in_utf_8(node: Node) -> None:
    umlaut = await client(node, tenant="süd")
    raw: Any = {"X-Vault-Namespace": "süd".encode()}
    assert (await umlaut.gets("POST", "transit/encrypt/k", {}, headers=raw))["data"]["tenant"] == "süd"
    raw = {"X-Vault-Namespace": b"s\xfcd"}
    assert await umlaut.fails(400, "POST", "transit/encrypt/k", {}, headers=raw)


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b"", None, {}),
        (b"   ", None, {}),
        (b"null", None, {}),
        (b'{"plaintext": "YQ=="}', None, {"plaintext": "YQ=="}),
        (b'{"plaintext": "YQ=="}', "text/plain", {"plaintext": "YQ=="}),
        (b' {"plaintext": "YQ=="}', "application/x-www-form-urlencoded", {"plaintext": "YQ=="}),
        (b"plaintext=YQ%3D%3D", "application/x-www-form-urlencoded", {"plaintext": "YQ=="}),
        (b'{"plaintext": "!!", "plaintext": "YQ=="}', None, {"plaintext": "YQ=="}),
        (b'{"plaintext": "\\"\\\\"}', None, {"plaintext": '"\\'}),
    ],
)
async def test_parameters_are_read_as_vault_reads_them(
    node: Node, content: bytes, kind: str | None, expected: dict[str, Any]
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    told = await (await client(node)).gets("POST", "transit/encrypt/k", content=content, headers=headers)
    assert {name: value for name, value in told["data"].items() if name in FIELDS} == expected


@pytest.mark.parametrize(
    "content",
    [b"{not json", b'{"a": "b"', b'{"a": 1} x', b'{"a": 1}{"a": 2}', b'["a"]', b'"a"', b"1", b"\xff\xfe"],
)
async def test_what_is_no_object_is_refused(node: Node, content: bytes) -> None:
    (told,) = await (await client(node)).fails(400, "POST", "transit/encrypt/k", content=content)
    assert told.startswith("failed to decode JSON input: ")


async def test_what_an_endpoint_does_not_read_is_told_in_a_warning(node: Node) -> None:
    app = await client(node)
    told = await app.gets("POST", "transit/encrypt/k", {"plaintext": "", "colour": 1, "answer": 2})
    assert told["warnings"] == ["Endpoint ignored these unrecognized parameters: [answer colour]"]
    assert (await app.gets("POST", "transit/encrypt/k", {"plaintext": ""}))["warnings"] is None


async def test_a_body_has_up_to_a_thousand_strings_names_among_them(node: Node) -> None:
    app = await client(node)
    complex_ = ["refused JSON input due to high complexity: exceeded maximum number of strings"]
    for items, fields in ((499, 1), (249, 2), (333, 1)):
        item = {"plaintext": "YQ==", "key_version": 1} if items == 333 else {f"f{each}": "x" for each in range(fields)}
        await app.gets("POST", "transit/encrypt/k", {"batch_input": [item] * items})
        more = [item] * (items + 1)
        assert await app.fails(400, "POST", "transit/encrypt/k", {"batch_input": more}) == complex_
    quotes = {"batch_input": ['"' * 100] * 999}
    await app.gets("POST", "transit/encrypt/k", quotes)
    nested = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    (told,) = await app.fails(400, "POST", "transit/encrypt/k", content=nested)
    assert told.startswith("refused JSON input due to high complexity")


async def test_a_body_has_up_to_32_mib_and_of_who_is_not_known_less(node: Node, nobody: VaultClient) -> None:
    app = await client(node)
    frame = len(b'{"plaintext":""}')
    most = b'{"plaintext":"' + b"A" * (32 * 1024 * 1024 - frame) + b'"}'
    assert len((await app.gets("POST", "transit/encrypt/k", content=most))["data"]["plaintext"]) > 33_000_000
    refused = ["http: request body too large"]
    assert await app.fails(413, "POST", "transit/encrypt/k", content=most + b" ") == refused
    assert await nobody.fails(413, "POST", "auth/approle/login", content=b" " * 65_537) == refused


async def test_response_wrapping_is_refused_with_words_that_say_so(node: Node, nobody: VaultClient) -> None:
    app, given = await client(node), {"X-Vault-Wrap-TTL": "60s"}
    for caller, path in [(app, "transit/encrypt/k"), (nobody, "auth/approle/login"), (nobody, "sys/wrapping/unwrap")]:
        (told,) = await caller.fails(400, "POST", path, {}, headers=given)
        assert "response wrapping is not supported" in told
    (told,) = await nobody.fails(400, "POST", "auth/kubernetes/login", {"role": "a", "jwt": "b"})
    assert "Kubernetes login is not supported" in told


async def test_errors_have_the_status_of_the_services_table_and_vaults_form(node: Node) -> None:
    app = await client(node)
    for name, error, status, errors in [
        ("a", VaultRefusalError(404), 404, []),
        ("b", VaultRefusalError(400, "encryption key not found"), 400, ["encryption key not found"]),
        ("c", KeyNotFoundError("no such key"), 404, ["no such key"]),
        ("d", ConflictError("somebody else was first"), 409, ["somebody else was first"]),
        ("e", ForbiddenError("the scope that this takes"), 403, [POLICY]),
        ("f", UnauthenticatedError(), 403, [DENIED]),
        ("g", StoreUnavailableError("secret.host:5432"), 503, ["the service cannot reach its database; try again"]),
        ("h", ZeroDivisionError("secret"), 500, ["something went wrong in the service; its log has more"]),
    ]:
        ERRORS[name] = error
        assert await app.fails(status, "GET", f"transit/raise/{name}") == errors
    assert int((await app.send("GET", "transit/raise/g")).headers["retry-after"]) >= 1


async def test_requests_and_logins_are_limited_where_settings_say_so(
    installation: Installation, clock: FakeClock
) -> None:
    environ = {"KEYSTEAD_MACHINE_MAX_REQUESTS": "2", "KEYSTEAD_MACHINE_MAX_LOGINS": "1"}
    async with installation.node(environ=environ) as node:
        app, other, nobody = await client(node), await client(node), VaultClient(node.app)
        login = {"role_id": "a", "secret_id": "b"}
        for _ in range(2):
            await app.gets("POST", "transit/encrypt/k", {})
        told = ['request path "transit/encrypt/k": rate limit quota exceeded']
        answer = await app.send("POST", "transit/encrypt/k", {})
        assert (answer.status_code, answer.json()["errors"]) == (429, told)
        assert answer.headers["retry-after"] == "1"
        await other.gets("POST", "transit/encrypt/k", {})
        await nobody.fails(400, "POST", "auth/approle/login", login)
        await nobody.fails(429, "POST", "auth/approle/login", login)
        clock.advance(1)
        await app.gets("POST", "transit/encrypt/k", {})
        await nobody.fails(400, "POST", "auth/approle/login", login)


async def test_a_service_that_is_not_open_is_a_sealed_vault(tmp_path: Path, clock: FakeClock) -> None:
    installation = Installation(tmp_path, f"sqlite:///{tmp_path}/none.db", clock, is_migrated=False)
    async with installation.starting() as app:
        nobody = VaultClient(app, "any token")
        for method, path in [("POST", "transit/encrypt/k"), ("GET", "auth/token/lookup-self"), ("GET", "sys/nope")]:
            assert await nobody.fails(503, method, path) == ["Vault is sealed"]
        health = await nobody.send("GET", "sys/health")
        assert (health.status_code, health.json()["sealed"]) == (503, True)
        assert (await nobody.send("GET", "sys/health", sealedcode="299")).status_code == 299
        assert (await nobody.send("GET", "sys/seal-status")).json()["sealed"] is True
        assert (await nobody.send("GET", "sys/leader")).json() == {"ha_enabled": False}


async def test_health_is_told_to_anybody(node: Node, nobody: VaultClient) -> None:
    told = await nobody.send("GET", "sys/health", headers={"X-Vault-Token": "bad"})
    assert told.status_code == 200
    members = {"initialized", "sealed", "standby", "version", "server_time_utc", "cluster_id", "cluster_name"}
    assert members <= set(told.json())
    assert (await nobody.send("HEAD", "sys/health")).status_code == 200
    assert (await nobody.send("GET", "sys/health", activecode="299")).status_code == 299
    assert (await nobody.send("GET", "sys/health", standbyok="true")).status_code == 200
    for query in ({"standbyok": "junk"}, {"activecode": "junk"}, {"activecode": "99"}):
        assert await nobody.fails(400, "GET", "sys/health", **query) == []
    given = {"X-Vault-Namespace": "north"}
    assert await nobody.fails(400, "GET", "sys/health", headers=given) == ["operation unavailable in namespaces"]
    assert (await nobody.send("GET", "sys/seal-status", headers=given)).json()["sealed"] is False
    assert (await nobody.send("GET", "sys/leader")).json() == {"ha_enabled": False}
    assert (await nobody.send("GET", "sys/init")).json() == {"initialized": True}


async def test_under_dev_nobody_needs_a_token(installation: Installation) -> None:
    async with installation.node(is_development=True) as node:
        nobody = VaultClient(node.app)
        await nobody.gets("POST", "transit/encrypt/k", {})
        assert (await nobody.gets("GET", "auth/token/lookup-self"))["data"]["display_name"] == "dev"
        assert await VaultClient(node.app, "bad").fails(403, "POST", "transit/encrypt/k", {}) == [DENIED]


async def test_what_is_not_of_the_protocol_is_the_services_own(node: Node) -> None:
    http = httpx.AsyncClient(transport=httpx.ASGITransport(node.app), base_url="http://localhost:3000")
    for path in ("/v1/nope/keys/k", "/v2/transit/keys/k", "/v1/transit"):
        answer = await http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_a_path_that_nobody_has_is_none_whatever_stands_in_it(node: Node) -> None:
    caller = await client(node)
    for path in ("transit/a%0Ab", "transit/keys/a%0A/rotate", "sys/%00", "transit/%F0%9F%98%80/x", "transit/a%2Fb%0A"):
        assert await caller.fails(404, "GET", path) == ["1 error occurred:\n\t* unsupported path\n\n"]
