"""How a cluster is spoken to, and what is said."""

from __future__ import annotations

import base64
import contextlib
import multiprocessing.reduction
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import trustme
from distributed import Client, LocalCluster, Security

from keystead import bulk
from keystead.blocking import KeyManager
from keystead.bulk import Certificates, Dask
from keystead.bulk.cluster import require_safe
from keystead.bulk.tasks import KeyRules
from keystead.errors import ConfigurationError, WorkersLostError
from tests.bulk.conftest import FILES, RULES, plain_rows_of, rows_of


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tcp://localhost:1", "tcp://[::1]:1", "inproc://1/2/3"])
def test_on_this_machine_no_certificates_are_asked_for(address: str) -> None:
    require_safe(address, has_certificates=False)
    Dask(address)


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:8786", "tcp://scheduler.example:8786", "ucx://127.0.0.1:1", "10.0.0.1:8786", "ws://h:1"]
)
@pytest.mark.parametrize("has_certificates", [True, False])
def test_off_this_machine_only_tls_is_spoken(address: str, has_certificates: bool) -> None:
    with pytest.raises(ConfigurationError, match="not TLS"):
        require_safe(address, has_certificates=has_certificates)


def test_tls_is_spoken_with_certificates_on_both_sides() -> None:
    with pytest.raises(ConfigurationError, match="both sides"):
        Dask("tls://scheduler.example:8786")
    require_safe("tls://scheduler.example:8786", has_certificates=True)


def certificates(folder: Path) -> Certificates:
    """Make an authority, and a certificate of it."""
    folder.mkdir()
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    pair.private_key_pem.write_to_path(folder / "key.pem")
    pair.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return Certificates(str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))


def security(given: Certificates) -> Security:
    """Return what Dask's scheduler and workers take."""
    parts: dict[str, Any] = {"tls_ca_file": given.ca, "require_encryption": True}
    for role in ("scheduler", "worker", "client"):
        parts |= {f"tls_{role}_cert": given.cert, f"tls_{role}_key": given.key}
    return Security(**parts)


def test_a_cluster_with_certificates_works_and_one_with_others_is_not_reached(
    km: KeyManager, plain: Path, tmp_path: Path, settings: Path
) -> None:
    ours, others = certificates(tmp_path / "ours"), certificates(tmp_path / "others")
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        protocol="tls://",
        security=security(ours),
        local_directory=str(tmp_path / "dask"),
    ) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        with pytest.raises(WorkersLostError, match="with these certificates"):
            engine = Dask(address, certificates=others, connect_s=2.0)
            bulk.encrypt(km, plain, tmp_path / "encrypted", RULES, engine=engine, settings=settings)
        engine = Dask(address, certificates=ours)
        assert bulk.encrypt(km, plain, tmp_path / "encrypted", RULES, engine=engine, settings=settings).done == FILES
    assert rows_of(km, tmp_path / "encrypted").equals(plain_rows_of(plain))


@pytest.fixture
def heard(shared_cluster: LocalCluster) -> Iterator[tuple[str, bytearray]]:
    """Return an address before the scheduler, and everything that is said to it there."""
    said = bytearray()
    host, port = shared_cluster.scheduler_address.removeprefix("tcp://").rsplit(":", 1)
    ends: list[socket.socket] = []

    def pass_on(source: socket.socket, target: socket.socket, *, keep: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if keep:
                    said.extend(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = server.accept()
                scheduler = socket.create_connection((host, int(port)))
                ends.extend((caller, scheduler))
                for pair, keep in (((caller, scheduler), True), ((scheduler, caller), False)):
                    threading.Thread(target=pass_on, args=pair, kwargs={"keep": keep}, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}", said
        server.shutdown(socket.SHUT_RDWR)
    for end in ends:
        end.close()


def secrets_of(km: KeyManager, work: Path, plain: Path) -> dict[str, bytes]:
    """Return everything that must not travel, by what it is."""
    found = {"the KEK file": (work / "keystead.kek").read_bytes(), "its path": b"keystead.kek"}
    for ring in (km.default.ring, *(km.keyring(name).ring for name in RULES.keyrings)):
        for each in ring.snapshot.keys.values():
            found[f"key {each.version} of {ring.name}"] = bytes(each.key)
    for path in plain.rglob("*.parquet"):
        email = pq.read_table(path, partitioning=None)["email"]
        found |= {f"a value of {path.name}": value.encode() for value in email.to_pylist()[:3]}
    return found


def forms_of(secret: bytes) -> Iterator[bytes]:
    """Yield how a secret could be written."""
    yield secret
    if len(secret) == 32:
        yield repr(secret).encode()
        yield from (
            secret.hex().encode(),
            base64.b64encode(secret),
            base64.urlsafe_b64encode(secret),
            repr(secret).encode(),
        )


def assert_says_no_secret(said: bytes, secrets: dict[str, bytes]) -> None:
    """Fail where something that was said holds a secret; and where nothing was heard of the work at all."""
    assert b"country=DE/part-1.parquet" in said
    assert b"_keystead/run-" in said
    for what, secret in secrets.items():
        assert not [form for form in forms_of(secret) if form in said], what


def test_nothing_that_a_scheduler_hears_is_a_key_or_a_value(
    km: KeyManager, plain: Path, tmp_path: Path, settings: Path, heard: tuple[str, bytearray]
) -> None:
    address, said = heard
    report = bulk.encrypt(km, plain, tmp_path / "encrypted", RULES, engine=Dask(address), settings=settings)
    assert report.is_complete
    assert_says_no_secret(bytes(said), secrets_of(km, settings.parent, plain))


def test_nothing_that_a_process_of_the_pool_is_sent_is_a_key_or_a_value(
    km: KeyManager, plain: Path, tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, dumps, dump = bytearray(), multiprocessing.reduction.ForkingPickler.dumps, multiprocessing.reduction.dump

    def hear(value: object, *protocol: Any) -> Any:
        pickled = dumps(value, *protocol)
        said.extend(pickled)
        return pickled

    def hear_start(value: object, file: Any, *protocol: Any) -> None:
        begin = file.tell()
        dump(value, file, *protocol)
        said.extend(file.getvalue()[begin:])

    monkeypatch.setattr(multiprocessing.reduction.ForkingPickler, "dumps", hear)
    monkeypatch.setattr(multiprocessing.reduction, "dump", hear_start)
    report = bulk.encrypt(km, plain, tmp_path / "encrypted", RULES, engine=bulk.ProcessPool(1), settings=settings)
    assert report.is_complete
    assert_says_no_secret(bytes(said), secrets_of(km, settings.parent, plain))


def test_the_check_would_find_a_secret(km: KeyManager, plain: Path, work: Path) -> None:
    secrets = secrets_of(km, work, plain)
    said = b"country=DE/part-1.parquet _keystead/run- "
    assert_says_no_secret(said, secrets)
    assert len(secrets) > 2 + 2 + FILES
    for each in secrets.values():
        for form in forms_of(each):
            with pytest.raises(AssertionError):
                assert_says_no_secret(said + form, secrets)


def test_a_manager_is_opened_once_a_process_and_closed_at_the_end(
    km: KeyManager, plain: Path, tmp_path: Path, settings: Path, shared_cluster: LocalCluster
) -> None:
    with Client(shared_cluster, set_as_default=False) as client:
        engine = Dask(client)
        seen: list[set[int]] = []
        bulk.encrypt(
            km,
            plain,
            tmp_path / "encrypted",
            KeyRules(),
            engine=engine,
            settings=settings,
            on_progress=lambda told: seen.append({each for each in client.run(managers).values() if each}),
        )
        assert set().union(*seen) == {1}
        assert set(client.run(managers).values()) == {0}
    assert re.fullmatch(r"\w{32}", (tmp_path / "encrypted" / "_keystead" / "dataset").read_text().strip())


def managers() -> int:
    """Return how many managers are open in a worker."""
    from keystead.bulk import here

    return len(here._here._workers)
