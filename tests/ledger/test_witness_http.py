"""A witness over real HTTP: what it answers, what it refuses, and what its client makes of an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.crypto.merkle import consistency_proof, leaf_hash
from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    InvalidProofError,
    InvalidSignatureError,
    ProviderConnectionError,
)
from keystead.ledger.tlog.checkpoint import Checkpoint, verify_checkpoint
from keystead.ledger.tlog.cosignature import WitnessKey, WitnessSigner
from keystead.ledger.tlog.note import Note, NoteSignature
from keystead.ledger.witness import server as witness_server
from keystead.ledger.witness.client import cosigned, with_cosignatures
from keystead.ledger.witness.server import WitnessServer
from tests.ledger.files import until
from tests.ledger.test_witness import LEAVES, LOG, LOG_KEY, NOW, checkpoint, request, subtree
from tests.ledger.witnesses import ED25519, serving

SIGNER = ED25519
KEYS = [SIGNER.key]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WitnessServer]:
    with serving(tmp_path / "witness", {"log.example.org": [LOG_KEY]}) as made:
        yield made


def ask(
    server: WitnessServer, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, str, bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()
    finally:
        connection.close()


def raw(server: WitnessServer, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def note_of(new: Checkpoint) -> bytes:
    text = new.text()
    return Note(text, (NoteSignature(LOG_KEY.name, LOG_KEY.key_id, LOG.sign(text.encode())),)).render()


def proof(size: int, leaves: list[bytes] = LEAVES) -> object:
    return lambda old: consistency_proof(old, size, lambda level, at: subtree(leaves, level, at))


def submit(server: WitnessServer, size: int, leaves: list[bytes] = LEAVES) -> list[NoteSignature]:
    return cosigned(note_of(checkpoint(size, leaves)), server.url, KEYS, proof(size, leaves))  # type: ignore[arg-type]


def test_it_says_what_it_is(server: WitnessServer) -> None:
    status, kind, body = ask(server, "GET", "/")
    assert (status, kind) == (200, "text/plain; charset=utf-8")
    assert SIGNER.key.key.vkey.encode() in body


def test_it_answers_as_the_witness_does(server: WitnessServer) -> None:
    assert ask(server, "POST", "/add-checkpoint", request(0, checkpoint(5)))[0] == 200
    assert ask(server, "POST", "/add-checkpoint", request(0, checkpoint(8))) == (409, "text/x.tlog.size", b"5\n")
    assert ask(server, "POST", "/add-checkpoint", b"nonsense")[0] == 400
    assert ask(server, "POST", "/add-checkpoint", request(5, checkpoint(8), proof=[]))[0] == 422


def test_a_connection_serves_several_requests(server: WitnessServer) -> None:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    for old, new in ((0, 5), (5, 8), (8, 64)):
        connection.request("POST", "/add-checkpoint", request(old, checkpoint(new)))
        answer = connection.getresponse()
        assert (answer.status, b"witness.example.org" in answer.read()) == (200, True)
    connection.close()


def test_what_it_cosigned_last_is_there_for_whoever_watches(server: WitnessServer) -> None:
    path = f"/{sha256(b'log.example.org').hexdigest()}/checkpoint"
    assert ask(server, "GET", path)[0] == 404
    submit(server, 5)
    status, _, body = ask(server, "GET", path)
    assert status == 200
    assert len(verify_checkpoint(body, [LOG_KEY, *KEYS]).signed_by) == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\n\r\n", b"411"),
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", b"411"),
        (b"POST /add-checkpoint HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", b"411"),
        (b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: -2\r\n\r\n", b"400"),
        (b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", b"413"),
        (b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n", b"413"),
        (b"POST /else HTTP/1.1\r\nContent-Length: 2\r\n\r\nxx", b"404"),
        (b"DELETE / HTTP/1.1\r\n\r\n", b"501"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 90 + b"B: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET /../../etc/passwd HTTP/1.0\r\n\r\n", b"404"),
        (b"\x00\xff\n\n", b""),
    ],
    ids=range(11),
)
def test_what_no_client_sends_is_refused_and_the_connection_ends(
    server: WitnessServer, sent: bytes, status: bytes
) -> None:
    received = raw(server, sent)
    assert status in received.split(b"\r\n")[0] + received[:10]
    assert b"Python" not in received
    assert ask(server, "GET", "/")[0] == 200


def test_a_connection_that_lasts_too_long_is_ended(server: WitnessServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
        connection.sendall(b"POST /add-checkpoint HTTP/1.1\r\n")
        until(lambda: server._connections)
        assert all(ends > time.monotonic() for ends in server._connections.values())
        with server._turn:
            server._connections = dict.fromkeys(server._connections, 0.0)
        # Where the witness had not read the line yet, the kernel resets the connection.
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(10) == b""


def test_more_connections_than_it_has_places_for_are_hung_up_on(server: WitnessServer) -> None:
    held = [socket.create_connection(("127.0.0.1", server.server_port), timeout=10) for _ in range(60)]
    try:
        closed = 0
        for connection in held[witness_server.MAX_CONNECTIONS :]:
            closed += connection.recv(1) == b""
        assert closed == 60 - witness_server.MAX_CONNECTIONS
    finally:
        for connection in held:
            connection.close()
    for _ in range(200):
        try:
            assert ask(server, "GET", "/")[0] == 200
            break
        except OSError:
            pass


def test_an_address_that_is_taken_is_said_to_be(server: WitnessServer) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen"):
        WitnessServer(("127.0.0.1", server.server_port), server.witness, [SIGNER])


def test_a_client_gets_cosignatures_that_verify(server: WitnessServer) -> None:
    note = note_of(checkpoint(5))
    kept = with_cosignatures(note, submit(server, 5))
    assert len(verify_checkpoint(kept, [LOG_KEY, *KEYS]).signed_by) == 2
    assert len(Note.parse(with_cosignatures(kept, submit(server, 5))).signatures) == 2


def test_a_client_proves_growth_from_where_the_witness_is(server: WitnessServer) -> None:
    for size in (3, 5, 5, 8, 64):
        assert submit(server, size)


def test_a_client_that_shows_an_earlier_state_is_refused(server: WitnessServer) -> None:
    submit(server, 8)
    with pytest.raises(InvalidProofError, match="has seen 8 records"):
        submit(server, 5)


def test_a_client_that_shows_another_history_is_refused(server: WitnessServer) -> None:
    submit(server, 8)
    other = [leaf_hash(b"other"), *LEAVES[1:]]
    for size in (8, 20):
        with pytest.raises(InvalidProofError, match="another history"):
            submit(server, size, other)


def test_a_log_or_a_key_that_the_witness_does_not_know_is_said(server: WitnessServer) -> None:
    unknown = Checkpoint("other.example.org", 1, bytes(32))
    with pytest.raises(InvalidSignatureError, match="does not know this log"):
        cosigned(note_of(unknown), server.url, KEYS, proof(1))  # type: ignore[arg-type]
    text = checkpoint(5).text()
    forged = Note(text, (NoteSignature(LOG_KEY.name, LOG_KEY.key_id, bytes(64)),)).render()
    with pytest.raises(InvalidSignatureError, match="does not trust the key"):
        cosigned(forged, server.url, KEYS, proof(5))  # type: ignore[arg-type]


def test_what_another_key_cosigned_is_not_kept(server: WitnessServer) -> None:
    other = WitnessSigner("witness.example.org", Ed25519PrivateKey.from_private_bytes(bytes(31) + b"x"))
    with pytest.raises(InvalidSignatureError, match="no key that is trusted"):
        cosigned(note_of(checkpoint(5)), server.url, [other.key], proof(5))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        cosigned(note_of(checkpoint(5)), server.url, [], proof(5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "witness",
        "ftp://x",
        "http://",
        "http://u:p@x/",
        "http://x/?q",
        "http://x/#f",
        "http://x:99999",
        "http://a b/",
    ],
)
def test_what_is_no_url_of_a_witness_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        cosigned(note_of(checkpoint(5)), url, KEYS, proof(5))  # type: ignore[arg-type]
    assert "u:p" not in str(caught.value)


class _Liar(BaseHTTPRequestHandler):
    answer: tuple[int, str, bytes] = (200, "text/plain", b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, kind, body = self.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def lied_to(status: int, kind: str, body: bytes) -> str:
    handler = type("Liar", (_Liar,), {"answer": (status, kind, body)})
    with HTTPServer(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            cosigned(note_of(checkpoint(5)), f"http://127.0.0.1:{made.server_port}", KEYS, proof(5))  # type: ignore[arg-type]
        except (InvalidProofError, InvalidSignatureError, ProviderConnectionError) as exc:
            return exc.code
        finally:
            made.shutdown()
            thread.join()
    return "kept"


def _moved(line: str) -> bytes:
    """Return a cosignature whose time was changed."""
    from keystead.ledger.tlog.note import parse_signatures

    (found,) = parse_signatures(line)
    return NoteSignature(found.name, found.key_id, b"\x00" * 8 + found.value[8:]).line().encode()


@pytest.mark.parametrize(
    ("status", "kind", "body", "code"),
    [
        (200, "text/plain", b"", "invalid_signature"),
        (200, "text/plain", b"\xff\xfe", "invalid_signature"),
        (200, "text/plain", b"no signature\n", "invalid_signature"),
        (200, "text/plain", SIGNER.cosign(checkpoint(6).text(), NOW).line().encode(), "invalid_signature"),
        (200, "text/plain", _moved(SIGNER.cosign(checkpoint(5).text(), NOW).line()), "invalid_signature"),
        (200, "text/plain", b"x" * 100_000, "provider_connection"),
        (409, "text/x.tlog.size", b"nine\n", "provider_connection"),
        (409, "text/html", b"3\n", "provider_connection"),
        (409, "text/x.tlog.size", b"0\n", "invalid_proof"),
        (409, "text/x.tlog.size", b"9999\n", "invalid_proof"),
        (500, "text/plain", b"", "provider_connection"),
        (503, "text/plain", b"", "provider_connection"),
        (429, "text/plain", b"", "provider_connection"),
        (302, "text/plain", b"", "provider_connection"),
        (200, "text/plain", SIGNER.cosign(checkpoint(5).text(), NOW).line().encode(), "kept"),
    ],
    ids=range(15),
)
def test_a_witness_that_lies_is_not_believed(status: int, kind: str, body: bytes, code: str) -> None:
    assert lied_to(status, kind, body) == code


def test_a_witness_that_is_not_there_is_one_that_could_not_be_asked() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ProviderConnectionError, match="cannot be reached"):
            cosigned(note_of(checkpoint(5)), url, KEYS, proof(5))  # type: ignore[arg-type]


def test_a_witness_that_never_ends_its_answer_holds_nobody_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                try:
                    for _ in range(500):
                        connection.sendall(b"X: y\r\n")
                        if stop.wait(0.02):
                            return
                except OSError:
                    return

        stop = threading.Event()
        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ProviderConnectionError):
            cosigned(note_of(checkpoint(5)), url, KEYS, proof(5), timeout_s=0.2)  # type: ignore[arg-type]
        stop.set()
        thread.join()


def test_keys_of_a_policy_are_witness_keys() -> None:
    assert WitnessKey.parse(SIGNER.key.key.vkey) == SIGNER.key
