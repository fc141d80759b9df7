"""Four nodes on one database, of which one is killed again and again while users keep all of them busy.

What a client was told is noted, and has to hold at the end: in the tables, for who asks, and in the audit trail.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from keystead.access.callers import Scope
from keystead.model import utc_text
from soak.figures import Figures, Setting
from soak.harness import ChildFailedError, fork, in_child, results, wait_for
from soak.lives import Lives, Noted, noted
from soak.places import POSTGRESQL, Place, execute, rows
from soak.serving import Node, Site, running

NODES: Final = 4
WORKERS: Final = 2
WHERE: Final = POSTGRESQL
NEW_KEYS: Final = 5
GUESSES: Final = 5
DUE: Final = 0.8
"""Of its period, after which a version is due to be rotated."""
UPKEEPS: Final = 8
UPKEEP_S: Final = 5.0
ENVIRON: Final = {
    "KEYSTEAD_CLIENT_KEYS_READY": "3",
    "KEYSTEAD_KEYGEN_MAX_PER_USER": "1000000",
    "KEYSTEAD_KEYGEN_MAX_PER_MINUTE": "1000000",
    "KEYSTEAD_EPOCH_MAX_AGE": "2s",
}
"""Pairs are kept ready and data keys rotate; of the quotas, that of a device alone is met."""
ACTIONS: Final = (
    "client_key.create",
    "client_key.rotate",
    "client_key.upkeep",
    "device.revoke",
    "secret.attempt",
    "secret.set",
)


def measure(setting: Setting, figures: Figures) -> None:
    """Keep the nodes busy, kill one after the other, and compare what was told with what is."""
    seconds, every_s, old, period_s = setting.choose(short=(12.0, 1.5, 20, 6), full=(600.0, 3.0, 1_000, 60))
    environ = {**ENVIRON, "KEYSTEAD_ROTATION_PERIOD": f"{period_s}s"}
    begun = time.monotonic()
    site = Site(setting.databases.place(POSTGRESQL, setting.folder / "nodes"), environ)
    with running(site, NODES) as nodes:
        token = site.token("back end", Scope.DEVICES_USE, Scope.ACT_AS)
        lives = Lives([node.url for node in nodes], token, site.place.folder)
        in_child(lives.begin_old, old)
        workers = [fork(lives.work, f"user-{number}") for number in range(WORKERS)]
        kills = _kill_one_after_another(site.place, nodes, seconds, every_s)
        lives.stop.touch()
        seen = sum(results(workers, 600), Counter[str]())
        _end_old(site.place, nodes[0])
        still = in_child(lives.look)
    figures.tell(WHERE, "nodes, and how often one was killed and started again", f"{NODES}, {kills}")
    figures.tell(WHERE, "answers", ", ".join(f"{count} {code}" for code, count in sorted(seen.items()) if count))
    internal = {code for code in seen if code.startswith(("HTTP", "INTERNAL"))}
    figures.equal(WHERE, "answers of 500", ", ".join(sorted(internal)) or "none", "none")
    figures.equal(WHERE, "right PINs refused while nodes were killed", seen["right and refused"], 0)
    told = list(noted(site.place.folder))
    for what in ("key", "secret", "revoked"):
        figures.at_least(WHERE, f"noted: {what}", sum(each.what == what for each in told), 1)
    figures.equal(WHERE, "secrets and revocations that do not hold for who asks", still or "none", "none")
    _compare_rows(figures, site, told)
    _compare_trail(figures, site, told, old)
    _compare_versions(figures, site.place, 1 + (time.monotonic() - begun) / (period_s * DUE))


def _kill_one_after_another(place: Place, nodes: list[Node], seconds: float, every_s: float) -> int:
    """Kill a node and start it again, while keys of old devices come to their end; return how often."""
    until, kills = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        node = nodes[kills % len(nodes)]
        time.sleep(every_s)
        node.kill()
        _age(place, kills)
        node.start()
        kills += 1
    for node in nodes:
        node.wait()
    return kills


def _age(place: Place, batch: int | None) -> None:
    """Have a batch of old keys be expired since yesterday, or all."""
    which = "device_id LIKE 'old-%'" if batch is None else f"device_id LIKE 'old-%{batch % 10}'"
    moment = utc_text(datetime.now(UTC) - timedelta(days=1))
    execute(place.url, f"UPDATE client_encryption_keys SET expires_at = '{moment}' WHERE {which}")


def _end_old(place: Place, node: Node) -> None:
    """Wait until upkeep has erased every old key: a node that was killed in it keeps it for half a minute."""
    query = "SELECT count(*) FROM client_encryption_keys WHERE owner = 'old' AND wrapped_private_key IS NOT NULL"
    _age(place, None)
    for _ in range(UPKEEPS):
        if rows(place, query) == [(0,)]:
            return
        node.kill()
        node.start()
        node.wait()
        with contextlib.suppress(ChildFailedError):
            wait_for(lambda: rows(place, query) == [(0,)], UPKEEP_S, "upkeep")


def _compare_rows(figures: Figures, site: Site, told: list[Noted]) -> None:
    found = rows(
        site.place, "SELECT id, device_id, owner, public_key, wrapped_private_key IS NULL FROM client_encryption_keys"
    )
    ids = {(key_id, device, owner) for key_id, device, owner, _, _ in found}
    keys = {(each.key["keyId"], each.device, each.user) for each in told if each.what == "key"}
    figures.equal(WHERE, "keys handed out and not in the table", len(keys - ids), 0)
    figures.equal(WHERE, "public keys that two have", len(found) - len({public for _, _, _, public, _ in found}), 0)
    revoked = {each.device for each in told if each.what == "revoked"}
    figures.equal(WHERE, "keys of revoked devices", sum(d in revoked and not gone for _, d, _, _, gone in found), 0)
    per_device = Counter(device for _, device, _, _, _ in found)
    full = [per_device[each.device] for each in told if each.what == "full"]
    figures.equal(WHERE, f"keys of {len(full)} devices that took all they get", set(full), {NEW_KEYS})
    query = "SELECT user_id, counted, hash IS NOT NULL FROM user_credentials"
    counted = {user: (count, is_set) for user, count, is_set in rows(site.place, query)}
    locked = [each.user for each in told if each.what == "locked"]
    figures.equal(WHERE, f"attempts of {len(locked)} users who are locked", {counted[u][0] for u in locked}, {GUESSES})
    compared = site.compared()
    figures.at_most(WHERE, "guesses compared of one of them, at most", max(compared[u] for u in locked), GUESSES)
    lost = [each.user for each in told if each.what == "secret" and not counted.get(each.user, (0, False))[1]]
    figures.equal(WHERE, "secrets that were set and are not in the table", len(lost), 0)


def _compare_trail(figures: Figures, site: Site, told: list[Noted], old: int) -> None:
    report, entries = site.trail(*ACTIONS)
    figures.equal(WHERE, "the trail verifies, as one chain", report.valid, True)
    figures.equal(WHERE, "entries that still wait", report.waiting, 0)
    new = ("client_key.create", "client_key.rotate")
    made = Counter(each["client_key"] for each in entries if each["action"] in new)
    kept = Counter({key_id: 1 for (key_id,) in rows(site.place, "SELECT id FROM client_encryption_keys")})
    figures.equal(WHERE, "keys in the trail are those in the table, once each", made == kept, True)
    by_action: dict[str, set[Any]] = {
        "secret.set": {each["user"] for each in entries if each["action"] == "secret.set"},
        "device.revoke": {each["device"] for each in entries if each["action"] == "device.revoke"},
    }
    secrets = {each.user for each in told if each.what in ("secret", "locked")}
    figures.equal(WHERE, "secrets that were set, not in the trail", len(secrets - by_action["secret.set"]), 0)
    revoked = {each.device for each in told if each.what == "revoked"}
    figures.equal(WHERE, "revocations not in the trail", len(revoked - by_action["device.revoke"]), 0)
    attempts = sum(each["action"] == "secret.attempt" for each in entries)
    ((counted,),) = rows(site.place, "SELECT sum(counted) FROM user_credentials")
    figures.equal(WHERE, "attempts in the trail, beside those in the table", attempts, int(counted))
    upkeep = [each for each in entries if each["action"] == "client_key.upkeep"]
    figures.equal(WHERE, "old keys taken out of use, in all upkeeps", sum(each["deprecated"] for each in upkeep), old)
    figures.equal(WHERE, "old keys erased, in all upkeeps", sum(each["erased"] for each in upkeep), old)


def _compare_versions(figures: Figures, place: Place, most: float) -> None:
    """Compare versions of keyrings, which nodes rotate by age: one of them each time, and not each of them."""
    found = rows(place, "SELECT keyring, version, state FROM data_keys ORDER BY keyring, version")
    by_ring: dict[str, list[tuple[int, str]]] = {}
    for keyring, version, state in found:
        by_ring.setdefault(keyring, []).append((version, state))
    figures.at_most(WHERE, "versions of a keyring, of which each has its time", max(map(len, by_ring.values())), most)
    are_whole = all([v for v, _ in each] == list(range(1, len(each) + 1)) for each in by_ring.values())
    figures.equal(WHERE, "versions of every keyring are 1, 2, 3...", are_whole, True)
    active = {sum(state == "active" for _, state in each) for each in by_ring.values()}
    figures.equal(WHERE, "active versions of a keyring", active, {1})
