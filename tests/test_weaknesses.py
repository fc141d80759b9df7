"""Known weaknesses of key services for devices, and the tests by which this one is seen to have none of them.

Each is named by its file and by how its name begins. One of each weakness at least runs on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Final

import pytest

WEAKNESSES: Final[dict[str, str]] = {
    "private keys in clear in the database": "devices.dumps:a_dump devices.altered_rows:private_halves_that_change",
    "settings taken as text": "server.compatibility:documented_variables server.compatibility:days_that_are_no",
    "a quota that is off, or a process's": "devices.quotas:of_many devices.quotas:a_restart devices.quotas:device_ids",
    "whoever knows a device id has the device": "server.access:a_device_is_its_first",
    "keys that open for everybody": "server.alike:every_failure devices.altered_rows:a_pair_that_is_put_down",
    "ciphertexts that are good again": "devices.guesses:a_ciphertext_that devices.decrypting:a_passcode_that_was_bound",
    "guesses without a limit": "devices.guesses:of_two_hundred devices.guesses:five_wrong server.guesses:ten_thousand",
    "hashes that can be guessed from a dump": "devices.secrets:a_dump devices.hashing:no_part_of_a_long",
    "secrets of any kind": "devices.secrets:what_the_policy devices.policy:what_is_no_pin",
    "secrets replaced by who does not know them": "devices.secrets:a_change_takes server.access:a_change_of",
    "no that does not say why": "server.compatibility:an_expired_key",
    "metrics for everybody": "server.access:nobody_is_answered server.metrics:metrics_cover devices.summary:devices",
    "development in production": "server.schema:what_is_for server.development:what_is_in server.door:a_document_that",
    "many operations in one request": "server.documents:an_operation_does_one server.guesses:ten_thousand",
    "key pairs made while somebody waits": "devices.upkeep:a_burst devices.quotas:who_asks_for_more",
    "private keys parsed each time": "devices.client_keys:a_private_half_is_opened_once",
    "one algorithm, and guessing at others": "devices.decrypting:rsa_opens server.compatibility:what_browsers",
    "errors and times that tell why": "server.alike:every_failure devices.decrypting:whatever_is_wrong",
    "two keys where one was asked for": "devices.client_keys:fifty_who_ask_at_once stores.device_rows:a_device_has_one",
    "private keys kept after their end": "devices.upkeep:upkeep_erases server.compatibility:an_expired_key",
    "upkeep on every node at once": "server.nodes:of_two_nodes",
    "metrics in everybody's way": "devices.metrics:operations_wait devices.metrics:what_finds_no_place",
    "keys that others make suspect": "devices.summary:a_key_that_junk devices.summary:junk_that_others",
    "local time": "devices.times:a_pair_lives",
    "secrets in logs": "server.silence:no_logger server.requests:nothing_that_was_sent_is_logged",
    "public keys that nobody vouches for": "server.door:the_signature",
    "uses that are lost": "devices.decrypting:each_decryption stores.device_rows:uses_are_counted",
    "nobody knows who did it": "devices.trail:no_entry server.rest_audit:every_change",
    "nothing is ever deleted": "devices.owners:what_was_encrypted devices.owners:a_user_who_is_forgotten",
    "ids of any kind": "devices.names:whatever devices.client_keys:a_device_is_kept server.door:whatever_is_sent",
}
STORES: Final = {"world", "store", "installation", "node", "ada", "place", "durable_url"}
"""Fixtures that there are on either database."""


@pytest.mark.parametrize("weakness", WEAKNESSES)
def test_a_known_weakness_has_its_tests_on_either_database(weakness: str) -> None:
    fixtures = set[str]()
    for named in WEAKNESSES[weakness].split():
        where, begins = named.split(":")
        room, subject = where.split(".")
        module = import_module(f"tests.{room}.test_{subject}")
        (test,) = (test for name, test in vars(module).items() if name.startswith(f"test_{begins}"))
        fixtures |= set(inspect.signature(test).parameters)
    assert fixtures & STORES
