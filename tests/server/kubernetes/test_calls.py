"""The three calls, made by Kubernetes' own stubs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from typing import Any

import grpc
import pytest

from keystead.server.kubernetes.calls import SERVICE
from keystead.server.kubernetes.kms_v2_pb2 import DecryptRequest, DecryptResponse
from keystead.server.kubernetes.service import KeyService
from tests.server.kubernetes.plugins import KEY, SECRET, Installation, Plugin, healthy, named, until

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")


async def test_status_names_the_key_that_encrypt_uses_and_decrypt_gives_back_what_was_encrypted(plugin: Plugin) -> None:
    told = await plugin.status()
    assert (told["version"], told["healthz"]) == ("v2", "ok")
    made = await plugin.encrypt()
    assert made["key_id"] == told["key_id"]
    active = plugin.ring().snapshot.active
    assert active is not None
    assert told["key_id"].endswith(named(active))
    assert KEY in told["key_id"]
    assert SECRET not in made["ciphertext"]
    assert (await plugin.decrypt(made))["plaintext"] == SECRET


async def test_answers_keep_to_the_limits_of_an_api_server(plugin: Plugin) -> None:
    made = await plugin.encrypt(b"x" * 970)
    assert 0 < len(made["ciphertext"]) <= 1024
    assert 0 < len(made["key_id"].encode()) <= 1024
    assert made["annotations"]
    for name, value in made["annotations"].items():
        assert SUBDOMAIN.fullmatch(name)
        assert len(name) <= 253
        assert len(value) < 1024
    assert (await plugin.decrypt(made))["plaintext"] == b"x" * 970
    assert (await plugin.encrypt(b"x" * 971))["code"] == "InvalidArgument"


async def test_two_ciphertexts_of_one_plaintext_differ(plugin: Plugin) -> None:
    made = [await plugin.encrypt() for _ in range(3)]
    assert len({each["ciphertext"] for each in made}) == 3
    assert len({each["key_id"] for each in made}) == 1


async def test_an_altered_ciphertext_is_refused_wherever_it_is_altered(plugin: Plugin) -> None:
    made = await plugin.encrypt(b"x")
    whole = made["ciphertext"]
    for at in range(len(whole)):
        altered = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        refused = await plugin.decrypt(made, ciphertext=altered)
        assert refused["code"] == "InvalidArgument", at
    for cut in (b"", whole[:10], whole[:-1], whole + b"x", b"x" * 1025):
        assert (await plugin.decrypt(made, ciphertext=cut))["code"] == "InvalidArgument"


async def test_a_key_id_or_annotations_of_another_ciphertext_are_refused(cluster: Installation, plugin: Plugin) -> None:
    old = await plugin.encrypt()
    await cluster.rotate(promote="now")
    await until(lambda: _changed(plugin, old["key_id"]))
    new = await plugin.encrypt()
    assert old["key_id"] != new["key_id"]
    assert (await plugin.decrypt(old))["plaintext"] == (await plugin.decrypt(new))["plaintext"] == SECRET
    prefix, _, last = new["key_id"].rpartition("/")
    for wrong in (old["key_id"], "", last, f"x/{last}", f"{prefix[:-1]}7/{last}", new["key_id"] + " "):
        refused = await plugin.decrypt(new, key_id=wrong)
        assert refused["code"] == "InvalidArgument", wrong
        assert "key id" in refused["message"]
    kept = new["annotations"]
    for changed in (
        {},
        {**kept, "more.example.org": b""},
        dict.fromkeys(kept, b"x"),
        dict([*kept.items()][:1]),
    ):
        refused = await plugin.decrypt(new, annotations=changed)
        assert (refused["code"], "annotation" in refused["message"]) == ("InvalidArgument", True)


async def test_a_ciphertext_of_another_store_is_refused_by_an_answer_that_names_this_one(plugin: Plugin) -> None:
    made = await plugin.encrypt()
    own = made["annotations"]["store.keystead.org"].decode()
    refused = await plugin.decrypt(made, annotations=made["annotations"] | {"store.keystead.org": b"0" * 32})
    assert (refused["code"], own in refused["message"]) == ("InvalidArgument", True)


async def test_a_fault_of_ours_is_told_without_its_text_and_the_next_call_is_answered(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*given: Any) -> Any:
        raise RuntimeError("canary")

    with monkeypatch.context() as patch:
        patch.setattr(KeyService, "encrypt", fails)
        refused = await plugin.encrypt()
    assert (refused["code"], "canary" in refused["message"]) == ("Internal", False)
    assert "a call failed" in [record.message for record in caplog.records]
    assert (await plugin.encrypt())["code"] == ""


async def test_a_ciphertext_of_another_use_of_the_key_is_refused(plugin: Plugin) -> None:
    made = await plugin.encrypt()
    for context in (None, {"keystead-use": "kubernetes-kms-v2"}):
        foreign = plugin.ring().local_encrypt(b"of another use", context=context)
        assert (await plugin.decrypt(made, ciphertext=foreign))["code"] == "InvalidArgument"
    other = (await plugin.manager.keyring("another")).local_encrypt(b"of another key")
    assert (await plugin.decrypt(made, ciphertext=other))["code"] == "InvalidArgument"


async def test_a_key_that_the_store_does_not_have_is_not_found(plugin: Plugin) -> None:
    made = await plugin.encrypt()
    data_key_id = 7
    invented = made["ciphertext"][:2] + data_key_id.to_bytes(8, "big") + made["ciphertext"][10:]
    key_id = made["key_id"].rpartition("/")[0] + named(data_key_id)
    refused = await plugin.decrypt(made, ciphertext=invented, key_id=key_id)
    assert (refused["code"], "7" in refused["message"]) == ("NotFound", True)


async def test_a_disabled_version_is_a_failed_precondition_and_is_read_again_when_it_is_enabled(
    cluster: Installation, plugin: Plugin
) -> None:
    made = await plugin.encrypt()
    old = plugin.ring().snapshot.active
    assert old is not None
    await cluster.rotate(promote="now")
    await until(lambda: _changed(plugin, made["key_id"]))
    destruction = plugin.manager.require_session().lifecycle.destruction
    await destruction.disable(old)
    await until(lambda: _refused(plugin, made))
    refused = await plugin.decrypt(made)
    assert (refused["code"], "enable" in refused["message"]) == ("FailedPrecondition", True)
    await destruction.enable(old)
    await until(lambda: _opens(plugin, made))


async def test_of_more_calls_at_once_than_are_taken_the_others_are_refused_and_none_is_lost(
    cluster: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.server.kubernetes.plugin.MOST_AT_ONCE", 4)
    begun, go_on = list[bytes](), asyncio.Event()

    async def slowly(service: KeyService, ciphertext: bytes, *given: Any) -> bytes:
        begun.append(ciphertext)
        await go_on.wait()
        return ciphertext

    async with cluster.plugin() as plugin, grpc.aio.insecure_channel(f"unix:{plugin.path}") as channel:
        monkeypatch.setattr(KeyService, "decrypt", slowly)
        decrypt = channel.unary_unary(
            f"/{SERVICE}/Decrypt",
            request_serializer=DecryptRequest.SerializeToString,
            response_deserializer=DecryptResponse.FromString,
        )
        calls = [decrypt(DecryptRequest(ciphertext=bytes([number])), timeout=20) for number in range(10)]
        refused = 0
        for call in asyncio.as_completed([asyncio.ensure_future(_code(each)) for each in calls]):
            if (code := await call) == "RESOURCE_EXHAUSTED":
                refused += 1
                if refused == 6:
                    go_on.set()
            else:
                assert code == "OK"
        assert (refused, len(begun)) == (6, 4)
        monkeypatch.undo()


async def _code(call: Any) -> str:
    return str((await call.code()).name)


async def test_what_is_no_request_of_the_interface_changes_nothing(plugin: Plugin) -> None:
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 5000, os.urandom(5000)):
        _, writer = await asyncio.open_unix_connection(plugin.path)
        writer.write(sent)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()
    refused = await plugin.client.ask("encrypt", plaintext=b"x" * 70_000)
    assert refused["code"] == "ResourceExhausted"
    assert await healthy(plugin.client)


async def test_most_answers_take_milliseconds(plugin: Plugin) -> None:
    """Within a far bound: other processes share the machine."""
    measured = await plugin.client.ask("measure", number=200, plaintext=SECRET)
    assert (measured["code"], measured["encrypt_p95_ms"] < 100, measured["decrypt_p95_ms"] < 100) == ("", True, True), (
        measured
    )


async def _changed(plugin: Plugin, key_id: str) -> bool:
    return bool((await plugin.status())["key_id"] != key_id)


async def _is_gone(plugin: Plugin) -> bool:
    return not plugin.path.exists()


async def _refused(plugin: Plugin, made: dict[str, object]) -> bool:
    return bool((await plugin.decrypt(made))["code"])


async def _opens(plugin: Plugin, made: dict[str, object]) -> bool:
    return not await _refused(plugin, made)


pytestmark = pytest.mark.timeout(120)


async def test_a_call_that_runs_when_the_plugin_is_told_to_stop_is_answered(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, begun, go_on = await plugin.encrypt(), asyncio.Event(), asyncio.Event()
    decrypt = KeyService.decrypt

    async def slowly(*given: Any) -> bytes:
        begun.set()
        await go_on.wait()
        return await decrypt(*given)

    monkeypatch.setattr(KeyService, "decrypt", slowly)
    running = asyncio.create_task(plugin.decrypt(made))
    await begun.wait()
    plugin.stop.set()
    await until(lambda: _is_gone(plugin))
    go_on.set()
    assert (await running)["plaintext"] == SECRET
