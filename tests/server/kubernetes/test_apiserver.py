"""An API server's own code: it parses and validates the configuration, and keeps secrets by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.errors import ProviderAuthError
from tests.server.kubernetes.plugins import Installation, Plugin, until
from tests.services.cluster import Program, built, running

SECRET = b"kind: Secret"


def configuration(folder: Path, socket: Path) -> Path:
    """Write an EncryptionConfiguration."""
    path = folder / "encryption.yaml"
    path.write_text(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
        "  - resources: [secrets]\n    providers:\n"
        f"      - kms: {{apiVersion: v2, name: keystead, endpoint: 'unix://{socket}', timeout: 3s}}\n"
        "      - identity: {}\n"
    )
    return path


async def done(server: Program, call: str, **given: object) -> bytes:
    answer = await server.ask(call, **given)
    assert answer["error"] == ""
    return bytes(answer["data"])


async def test_secrets_are_kept_encrypted_and_read_again_after_restarts_of_both_and_a_rotation(
    cluster: Installation, tmp_path: Path
) -> None:
    async with running(built("apiserver")) as server:
        async with cluster.plugin() as plugin:
            config = str(configuration(tmp_path, plugin.path))
            await done(server, "load", config=config)
            await done(server, "healthz")
            old = await done(server, "write", name="one", data=SECRET)
            assert old.startswith(b"k8s:enc:kms:v2:keystead:")
            assert SECRET not in old
            assert await server.ask("read", name="one", data=old) == _read(SECRET)
            before = (await plugin.status())["key_id"]
            await cluster.rotate()
            await until(lambda: _has_moved(plugin, before))
            # At its next look the API server writes under the new key, and says of what is older that it is stale.
            await done(server, "load", config=config)
            new = await done(server, "write", name="one", data=SECRET)
            assert (await server.ask("read", name="one", data=new))["stale"] is False
            assert await server.ask("read", name="one", data=old) == _read(SECRET, stale=True)
            assert (await server.ask("read", name="two", data=new))["error"]
        async with cluster.plugin():
            await done(server, "load", config=config)
            for stored in (old, new):
                assert await done(server, "read", name="one", data=stored) == SECRET


@pytest.mark.parametrize("cluster", ["sqlite"], indirect=True)  # an API server asks again after twenty seconds
async def test_an_unhealthy_plugin_keeps_an_api_server_writing_and_is_told_in_its_healthz(
    cluster: Installation, tmp_path: Path
) -> None:
    async with running(built("apiserver")) as server, cluster.plugin(kek_recheck_s=0.3) as plugin:
        await done(server, "load", config=str(configuration(tmp_path, plugin.path)))
        cluster.kms.fail_always(ProviderAuthError("no"))
        await until(lambda: _fails(server), 60)
        told = (await server.ask("healthz"))["error"]
        assert "provider_auth: the key management service denies what the service needs" in told
        written = await done(server, "write", name="one", data=SECRET)
        cluster.kms.heal()
        assert await done(server, "read", name="one", data=written) == SECRET


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("unix://", "tcp://"), ("apiVersion: v2", "apiVersion: v3"), ("timeout", "cure"), ("3s", "-3s")],
)
async def test_what_parses_the_configuration_here_refuses_one_that_is_wrong(
    tmp_path: Path, right: str, wrong: str
) -> None:
    path = configuration(tmp_path, Path("/run/keystead/kms.sock"))
    path.write_text(path.read_text().replace(right, wrong))
    async with running(built("apiserver")) as server:
        assert (await server.ask("load", config=str(path)))["error"]


def _read(data: bytes, *, stale: bool = False) -> dict[str, object]:
    return {"error": "", "data": data, "stale": stale, "annotations": {}}


async def _has_moved(plugin: Plugin, before: str) -> bool:
    return bool((await plugin.status())["key_id"] != before)


async def _fails(server: Program) -> bool:
    return bool((await server.ask("healthz"))["error"])
