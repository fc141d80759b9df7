"""hvac, the client that most Python programs have, at a service that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.cli.serving import serving

hvac = pytest.importorskip("hvac", reason="needs hvac, of the extra `vault`")


@pytest.fixture
def url(folder: Path, cli: Cli) -> Iterator[str]:
    """A service over a store of its own."""
    with serving(folder) as started:
        yield started


def role(cli: Cli, *more: str, tenant: str = "") -> dict[str, str]:
    """Make an AppRole by the command line, and return what a program of it logs in with."""
    made = cli.json(
        *("token", "role", "create", "orders", "--scope", "transit:encrypt:orders-*", "--tenant", tenant),
        *("--token-ttl", "1h", "--secret-id-ttl", "90d", "--secret-id-uses", "2", *more),
    )
    secret = cli.json("token", "role", "secret-id", "create", "orders", "--tenant", tenant)
    return {"role_id": made["role_id"], "secret_id": secret["secret_id"]}


def test_hvac_logs_in_looks_up_renews_and_revokes(url: str, cli: Cli) -> None:
    given = role(cli, "--token-max-ttl", "4h")
    client: Any = hvac.Client(url)
    assert client.sys.read_health_status(method="GET")["sealed"] is False
    assert client.sys.is_sealed() is False
    assert not client.is_authenticated()
    login = client.auth.approle.login(**given)
    assert login["auth"]["lease_duration"] == 3600
    assert client.token == login["auth"]["client_token"]
    assert client.is_authenticated()
    told = client.auth.token.lookup_self()["data"]
    assert (told["policies"], told["meta"]) == (["transit:encrypt:orders-*"], {"role_name": "orders"})
    assert client.auth.token.renew_self(increment="2h")["auth"]["lease_duration"] == 7200
    client.auth.token.revoke_self()
    assert not client.is_authenticated()
    with pytest.raises(hvac.exceptions.Forbidden, match="permission denied"):
        client.auth.token.lookup_self()
    hvac.Client(url).auth.approle.login(**given)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="invalid role or secret ID"):
        hvac.Client(url).auth.approle.login(**given)


def test_hvac_names_a_namespace(url: str, cli: Cli) -> None:
    given = role(cli, tenant="north")
    client: Any = hvac.Client(url, namespace="north")
    client.auth.approle.login(**given)
    assert client.auth.token.lookup_self()["data"]["namespace_path"] == "north/"
    other: Any = hvac.Client(url, token=client.token, namespace="south")
    with pytest.raises(hvac.exceptions.Forbidden):
        other.auth.token.lookup_self()
    assert hvac.Client(url, token=client.token).is_authenticated()
