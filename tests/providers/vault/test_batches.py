"""Batches: in as few requests as the limits allow, in order, and with the error of each item that failed."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from keystead.errors import (
    EncryptionError,
    InvalidInputError,
    KeyStateError,
    PartialBatchError,
    ProviderConnectionError,
    SigningError,
)
from keystead.model import EncryptedData, Signature, SignatureAlgorithm
from keystead.ports import EncryptsBatches
from keystead.providers.guard import GuardedProvider
from keystead.providers.vault.batches import split
from keystead.providers.vault.client import MAX_BODY_SIZE, body_size, string_count
from keystead.providers.vault.provider import VaultKMSProvider
from tests.providers.vault.making import Making, text

CONTEXT = {"tenant": "north"}
JSON = {"Content-Type": "application/json"}


def sizes(items: Sequence[dict[str, Any]], around: dict[str, Any]) -> list[int]:
    return [end - start for start, end in split(items, around)]


def test_what_a_server_counts_is_counted_as_it_does() -> None:
    assert string_count({"batch_input": [{"plaintext": "x"}] * 499}) == 999
    assert string_count({"batch_input": [{"plaintext": "x", "key_version": 1}] * 333}) == 1000
    assert string_count({"plaintext": None, "prehashed": True}) == 2
    for body in ({"a": "b" * 1000, "c": 5, "d": True}, {"batch_input": [{"input": "x" * 99, "n": 1}] * 70, "e": "f"}):
        real = len(json.dumps(body))
        assert real <= body_size(body) <= real * 1.1


@pytest.mark.parametrize(
    ("count", "item", "around", "expected"),
    [
        (1000, {"input": "x"}, {}, [499, 499, 2]),
        (1000, {"input": "x"}, {"algorithm": "sha2-256"}, [498, 498, 4]),
        (499, {"plaintext": "x"}, {}, [499]),
        (250, {"plaintext": "x", "context": "y"}, {}, [249, 1]),
        (333, {"plaintext": "x", "key_version": 2}, {}, [333]),
        (1, {"plaintext": "x"}, {}, [1]),
        (0, {"plaintext": "x"}, {}, []),
        (5, {"plaintext": "x" * (10 << 20)}, {}, [3, 2]),
    ],
)
def test_a_batch_is_split_where_the_next_item_would_be_too_much(
    count: int, item: dict[str, Any], around: dict[str, Any], expected: list[int]
) -> None:
    assert sizes([item] * count, around) == expected


def test_an_item_that_no_request_can_hold_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"km\.local_encrypt"):
        split([{"plaintext": "x"}, {"plaintext": "x" * MAX_BODY_SIZE}], {})


@pytest.mark.parametrize(("context", "requests"), [({}, 3), (CONTEXT, 5)])
async def test_a_thousand_plaintexts_take_as_few_requests_as_the_server_allows(
    making: Making, provider: VaultKMSProvider, context: dict[str, str], requests: int
) -> None:
    key = making.bao.new_key()
    values = [str(number).encode() for number in range(1000)]
    sealed = await provider.encrypt_batch(values, key, context=context)
    assert len(making.paths("encrypt")) == requests
    sample = range(0, 1000, 97)
    opened = await asyncio.gather(*(provider.decrypt(sealed[number], context=context) for number in sample))
    assert opened == [values[number] for number in sample]


async def test_the_limits_are_the_servers(making: Making) -> None:
    key = making.bao.new_key()
    for fields, most in (({}, 499), ({"associated_data": text(b"x")}, 249), ({"key_version": 1}, 333)):
        items = [{"plaintext": text(b"x"), **fields}] * most
        assert making.bao.ask("POST", f"transit/encrypt/{key}", {"batch_input": items}).status == 200
        assert making.bao.ask("POST", f"transit/encrypt/{key}", {"batch_input": [*items, items[0]]}).status == 400


async def test_a_thousand_macs_are_three_requests(making: Making, provider: VaultKMSProvider) -> None:
    key = making.bao.new_key()
    messages = [str(number).encode() for number in range(1000)]
    for algorithm in (None, SignatureAlgorithm.HMAC_SHA_512):
        making.proxy.requests.clear()
        macs = await provider.mac_batch(messages, key, algorithm=algorithm)
        assert making.paths() == [f"transit/hmac/{key}"] * 3 or algorithm is None
        assert len(making.paths("hmac")) == 3
        for number in range(0, 1000, 97):
            await provider.verify_mac(messages[number], macs[number])


async def test_a_thousand_signatures_are_three_requests(making: Making, provider: VaultKMSProvider) -> None:
    key = making.bao.shared_key(type="ed25519")
    await provider.sign_batch([str(number).encode() for number in range(1000)], key)
    assert len(making.paths("sign")) == 3


@pytest.mark.parametrize("items", [[], [b"one"]])
async def test_small_batches_are_batches(making: Making, provider: VaultKMSProvider, items: list[bytes]) -> None:
    key = making.bao.new_key()
    sealed = await provider.encrypt_batch(items, key, context=CONTEXT)
    assert [await provider.decrypt(one) for one in sealed] == items
    assert len(await provider.mac_batch(items, key)) == len(items)
    assert len(await provider.sign_batch(items, making.bao.shared_key(type="ed25519"))) == len(items)


async def test_a_server_that_takes_less_gets_halves(making: Making, provider: VaultKMSProvider) -> None:
    key = making.bao.new_key()
    await provider.encrypt(b"value", key)
    refusal = {"errors": ["refused JSON input due to high complexity: exceeded maximum number of strings"]}
    making.proxy.requests.clear()
    making.proxy.fail_next(2, status=400, body=json.dumps(refusal).encode(), headers=JSON, path="encrypt")
    values = [str(number).encode() for number in range(40)]
    sealed = await provider.encrypt_batch(values, key)
    assert [await provider.decrypt(one) for one in sealed] == values
    # 40 and 20 refused; then 10, 10 and 20.
    assert len(making.paths("encrypt")) == 5


@pytest.mark.parametrize("status", [200, 400, 500])
async def test_a_batch_of_which_items_failed_tells_which_whatever_its_status(
    making: Making, provider: VaultKMSProvider, status: int
) -> None:
    key = making.bao.new_key()
    good = await provider.encrypt(b"first", key)
    results: list[dict[str, Any]] = [
        {"ciphertext": good.ciphertext.decode(), "key_version": 1, "reference": ""},
        {"error": "refusing to use soft-deleted key", "reference": ""},
        {"error": "something new", "reference": ""},
    ]
    body = json.dumps({"data": {"batch_results": results}}).encode()
    making.proxy.fail_next(1, status=status, body=body, headers=JSON, path="encrypt")
    with pytest.raises(PartialBatchError, match="2 of 3 plaintexts") as caught:
        await provider.encrypt_batch([b"first", b"second", b"third"], key)
    first, second, third = caught.value.results
    assert isinstance(first, EncryptedData)
    assert first.ciphertext == good.ciphertext
    assert (type(second), type(third)) == (KeyStateError, EncryptionError)
    assert not caught.value.retryable


async def test_what_succeeded_of_a_batch_names_the_instance_as_every_answer_does(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.new_key()
    guarded = GuardedProvider(provider, "cloud")
    good = await guarded.encrypt(b"first", key)
    results = [{"ciphertext": good.ciphertext.decode()}, {"error": "something new"}]
    body = json.dumps({"data": {"batch_results": results}}).encode()
    making.proxy.fail_next(1, status=400, body=body, headers=JSON, path="encrypt")
    assert isinstance(guarded, EncryptsBatches)
    with pytest.raises(PartialBatchError) as caught:
        await guarded.encrypt_batch([b"first", b"second"], key)
    first, _ = caught.value.results
    assert isinstance(first, EncryptedData)
    assert first.key_reference.provider == "cloud"
    assert await guarded.decrypt(first) == b"first"


async def test_macs_and_signatures_that_failed_are_told_the_same_way(
    making: Making, provider: VaultKMSProvider
) -> None:
    key, signer = making.bao.new_key(), making.bao.shared_key(type="ed25519")
    mac, signature = await provider.mac(b"one", key), await provider.sign(b"one", signer)
    for verb, name, made in (("hmac", "hmac", mac), ("sign", "signature", signature)):
        body = {"batch_results": [{name: f"vault:v1:{text(made.value)}"}, {"error": "something new"}]}
        making.proxy.fail_next(1, status=200, body=json.dumps({"data": body}).encode(), headers=JSON, path=f"/{verb}/")
        with pytest.raises(PartialBatchError, match="1 of 2") as caught:
            if verb == "hmac":
                await provider.mac_batch([b"one", b"two"], key)
            else:
                await provider.sign_batch([b"one", b"two"], signer)
        first, second = caught.value.results
        assert isinstance(first, Signature)
        assert first.value == made.value
        assert isinstance(second, SigningError)


async def test_a_whole_batch_that_fails_fails_as_one_call_does(making: Making, provider: VaultKMSProvider) -> None:
    key = making.bao.new_key()
    await provider.encrypt(b"value", key)
    making.bao.soft_delete_key(key)
    for call in (provider.encrypt_batch([b"a", b"b"], key), provider.mac_batch([b"a", b"b"], key)):
        with pytest.raises(KeyStateError):
            await call


@pytest.mark.parametrize("results", [[], [{}, {}, {}], "none", ["text", "text"]])
async def test_results_that_are_not_as_many_as_the_items_are_not_believed(
    making: Making, provider: VaultKMSProvider, results: object
) -> None:
    key = making.bao.new_key()
    await provider.encrypt(b"value", key)
    body = json.dumps({"data": {"batch_results": results}}).encode()
    making.proxy.fail_next(2, status=200, body=body, headers=JSON)
    with pytest.raises(ProviderConnectionError):
        await provider.encrypt_batch([b"a", b"b"], key)
    with pytest.raises(ProviderConnectionError):
        await provider.mac_batch([b"a", b"b"], key)


async def test_a_batch_is_encoded_hashed_and_divided_off_the_event_loop(
    making: Making, provider: VaultKMSProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, signer = making.bao.shared_key(), making.bao.shared_key(type="ecdsa-p256")
    here, seen = threading.get_ident(), Counter[int]()

    def noting(call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            seen[threading.get_ident()] += 1
            return call(*given)

        return noted

    for module, name in (("cipher", "encode"), ("cipher", "split"), ("signer", "encode"), ("signing", "split")):
        place = importlib.import_module(f"keystead.providers.vault.{module}")
        monkeypatch.setattr(place, name, noting(getattr(place, name)))
    messages = [b"x"] * 20
    await provider.encrypt_batch(messages, key, context=CONTEXT)
    await provider.mac_batch(messages, key)
    await provider.sign_batch(messages, signer)
    assert seen.total() > 60
    assert seen[here] == 0
