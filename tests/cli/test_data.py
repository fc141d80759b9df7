"""``keystead encrypt``, ``decrypt`` and ``inspect`` on files, pipes and texts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from keystead import KeyManager
from tests.cli.conftest import Cli, run_process

PLAIN = b"meet at noon \x00\xff" * 5000


def test_a_file_comes_back_as_it_was(folder: Path, cli: Cli) -> None:
    Path("plain").write_bytes(PLAIN)
    cli.ok("encrypt", "plain", "-o", "sealed", "--context", "room=4", "--context", "day=1")
    assert PLAIN[:100] not in Path("sealed").read_bytes()
    cli.ok("decrypt", "sealed", "-o", "copy", "--context", "day=1", "--context", "room=4")
    assert Path("copy").read_bytes() == PLAIN


def test_a_pipe_comes_back_as_it_was(folder: Path, cli: Cli) -> None:
    sealed = cli.ok("encrypt", given=PLAIN).stdout_bytes
    assert cli.ok("decrypt", "-", given=sealed).stdout_bytes == PLAIN


@pytest.mark.parametrize("plaintext", [b"", b"x"])
def test_short_inputs_come_back_too(folder: Path, cli: Cli, plaintext: bytes) -> None:
    assert cli.ok("decrypt", given=cli.ok("encrypt", given=plaintext).stdout_bytes).stdout_bytes == plaintext
    assert cli.ok("decrypt", given=cli.ok("encrypt", "--text", given=plaintext).stdout_bytes).stdout_bytes == plaintext


def test_a_text_comes_back_as_it_was(folder: Path, cli: Cli) -> None:
    text = cli.ok("encrypt", "--text", given=b"meet at noon\n").stdout
    assert text.startswith("ks1.")
    assert cli.ok("decrypt", given=text).stdout == "meet at noon\n"


def test_what_was_encrypted_before_a_rotation_decrypts_after_it(folder: Path, cli: Cli) -> None:
    sealed, text = cli.ok("encrypt", given=PLAIN).stdout_bytes, cli.ok("encrypt", "--text", given=b"x").stdout
    cli.ok("key", "rotate")
    cli.ok("key", "rotate", "files")
    cli.ok("key", "rewrap")
    assert cli.ok("decrypt", given=sealed).stdout_bytes == PLAIN
    assert cli.ok("decrypt", given=text).stdout == "x"


@pytest.mark.parametrize("form", [(), ("--text",)])
def test_another_context_is_exit_code_3(folder: Path, cli: Cli, form: tuple[str, ...]) -> None:
    sealed = cli.ok("encrypt", *form, "--context", "room=4", given=PLAIN).stdout_bytes
    for wrong in ([], ["--context", "room=5"]):
        error = cli.fails(3, "decrypt", *wrong, "-o", "copy", given=sealed)
        assert "wrong context" in error
    assert not Path("copy").exists()


@pytest.mark.parametrize("form", [(), ("--text",)])
@pytest.mark.parametrize("at", [0, 1, 5, 12, 30, 60, -1])
def test_altered_bytes_are_exit_code_3_and_leave_what_was_there(
    folder: Path, cli: Cli, form: tuple[str, ...], at: int
) -> None:
    Path("copy").write_bytes(b"before")
    sealed = bytearray(cli.ok("encrypt", *form, given=PLAIN).stdout_bytes.strip() if form else
                       cli.ok("encrypt", given=PLAIN).stdout_bytes)  # fmt: skip
    sealed[at] ^= 1
    cli.fails(3, "decrypt", "-o", "copy", given=bytes(sealed))
    assert Path("copy").read_bytes() == b"before"
    assert sorted(os.listdir()) == sorted(
        [".gitignore", ".keystead", "copy", "keys.db", "keystead.kek", "keystead.yaml"]
    )


def test_a_truncated_stream_is_exit_code_3(folder: Path, cli: Cli) -> None:
    sealed = cli.ok("encrypt", given=PLAIN).stdout_bytes
    for size in (1, 25, 26, 80, len(sealed) - 1):
        cli.fails(3, "decrypt", given=sealed[:size])


def test_what_keystead_did_not_write_is_exit_code_3(folder: Path, cli: Cli) -> None:
    cli.fails(3, "decrypt", given=b"just some text")
    cli.fails(3, "inspect", given=b"just some text")


def test_what_does_not_open_is_named(folder: Path, cli: Cli) -> None:
    cli.ok("encrypt", "-o", "note.enc", "--context", "room=4", given=PLAIN)
    assert cli.fails(3, "decrypt", "note.enc").startswith(
        "error: note.enc: decryption failed: wrong key, wrong context"
    )


def test_what_another_store_encrypted_says_so(folder: Path, cli: Cli) -> None:
    cli.ok("encrypt", "-o", "note.enc", "--store", "sqlite:///other.db", given=PLAIN)
    assert "is not in this store: name the store it was encrypted with" in cli.fails(3, "decrypt", "note.enc")


@pytest.mark.parametrize(
    "content", [b"", b"short", b"a text that was never encrypted, and long enough for a header", b"ks1.x"]
)
@pytest.mark.parametrize("command", ["decrypt", "inspect"])
def test_a_file_that_was_never_encrypted_is_named_with_the_cure(
    folder: Path, cli: Cli, command: str, content: bytes
) -> None:
    Path("note").write_bytes(content)
    error = cli.fails(3, command, "note")
    assert error.startswith("error: note is nothing that Keystead encrypted, or not all of it (")
    assert "name a file as `keystead encrypt` wrote it" in error
    assert cli.fails(3, command, given=content).startswith("error: what stdin gives is nothing")


def test_a_file_may_be_encrypted_in_place(folder: Path, cli: Cli) -> None:
    Path("data").write_bytes(PLAIN)
    cli.ok("encrypt", "data", "-o", "data")
    cli.ok("decrypt", "data", "-o", "data")
    assert Path("data").read_bytes() == PLAIN


def test_a_replaced_file_keeps_its_mode_and_a_link_stays_a_link(folder: Path, cli: Cli) -> None:
    Path("real").write_bytes(b"")
    Path("real").chmod(0o640)
    Path("link").symlink_to("real")
    cli.ok("encrypt", "-o", "link", given=PLAIN)
    assert Path("link").is_symlink()
    assert Path("real").stat().st_mode & 0o777 == 0o640
    assert cli.ok("decrypt", "link").stdout_bytes == PLAIN


def test_what_is_no_file_is_written_to_and_not_replaced(folder: Path, cli: Cli) -> None:
    before = os.stat(os.devnull)
    cli.ok("encrypt", "-o", os.devnull, given=PLAIN)
    assert os.stat(os.devnull).st_ino == before.st_ino


def test_a_keyring_of_its_own_keeps_its_ciphertexts_to_itself(folder: Path, cli: Cli) -> None:
    sealed = cli.ok("encrypt", "--keyring", "orders", given=PLAIN).stdout_bytes
    assert "--keyring orders" in cli.fails(3, "decrypt", given=sealed)
    assert cli.ok("decrypt", "--keyring", "orders", given=sealed).stdout_bytes == PLAIN


def test_a_keyring_for_messages_takes_a_short_file_as_one(folder: Path, cli: Cli) -> None:
    cli.ok("key", "create", "orders")
    sealed = cli.ok("encrypt", "--keyring", "orders", given=b"x").stdout_bytes
    assert cli.json("inspect", given=sealed)["form"] == "message"
    assert cli.ok("decrypt", "--keyring", "orders", given=sealed).stdout_bytes == b"x"


def test_a_keyring_for_files_has_no_text_form(folder: Path, cli: Cli) -> None:
    cli.ok("key", "create", "archive", "--files")
    assert "no text form" in cli.fails(1, "encrypt", "--text", "--keyring", "archive", given=b"x")


def test_decrypting_under_a_keyring_that_is_not_there_makes_none(folder: Path, cli: Cli) -> None:
    sealed = cli.ok("encrypt", given=b"x").stdout_bytes
    cli.fails(3, "decrypt", "--keyring", "typo", given=sealed)
    assert cli.run("key", "list", "--keyring", "typo").exit_code == 1


def test_what_the_library_and_the_kms_encrypt_is_decrypted_too(folder: Path, cli: Cli) -> None:
    async def seal() -> tuple[bytes, str]:
        async with KeyManager.from_config("keystead.yaml") as km:
            return km.local_encrypt(b"local", context={"row": "1"}), str(await km.encrypt(b"kms", context={"row": "2"}))

    blob, text = asyncio.run(seal())
    assert cli.ok("decrypt", "--context", "row=1", given=blob).stdout == "local"
    assert cli.ok("decrypt", given=text).stdout == "kms"
    seen = cli.json("inspect", given=text)
    assert (seen["form"], seen["provider"], seen["context_keys"]) == ("kms text", "local", ["row"])
    assert "local:default version 1" in cli.ok("inspect", given=text).stdout
    cli.fails(3, "decrypt", "--context", "row=1", given=text)


def test_inspect_needs_no_key_and_no_settings(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.ok("encrypt", "-o", "sealed", given=PLAIN)
    key = cli.json("key", "show", "files/1")
    for name in ("keystead.yaml", "keystead.kek", "keys.db"):
        Path(name).unlink()
    seen = cli.json("inspect", "sealed")
    assert (seen["form"], seen["data_key_id"]) == ("stream", key["id"])
    assert seen["size_bytes"] == Path("sealed").stat().st_size


def test_inspect_tells_the_size_of_a_message(folder: Path, cli: Cli) -> None:
    text = cli.ok("encrypt", "--text", given=b"12345").stdout
    seen = cli.json("inspect", given=text)
    assert (seen["form"], seen["plaintext_bytes"], seen["suite"]) == ("text", 5, "0x01")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("encrypt", "absent"), "absent: No such file"),
        (("encrypt", "."), "Is a directory"),
        (("encrypt", "-o", "absent/out"), "absent/out: No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(folder: Path, cli: Cli, args: tuple[str, ...], told: str) -> None:
    assert told in cli.fails(1, *args, given=b"x")


@pytest.mark.parametrize(
    "args",
    [
        ("encrypt", "--context", "room"),
        ("encrypt", "--context", "=4"),
        ("encrypt", "--context", "a=1", "--context", "a=2"),
        ("encrypt", "-o", "."),
        ("encrypt", "--json"),
        ("decrypt", "--json"),
        ("encrypt", "--nonsense"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_help(folder: Path, cli: Cli, args: tuple[str, ...]) -> None:
    assert "--help" in cli.fails(2, *args, given=b"x")


def test_a_reserved_context_key_is_refused(folder: Path, cli: Cli) -> None:
    assert "reserved" in cli.fails(1, "encrypt", "--context", "keystead.store=x", given=b"x")


def test_a_message_of_over_64_mib_is_refused_with_the_cure(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.manager.payloads.MAX_PLAINTEXT", 10)
    assert "keyring for files" in cli.fails(1, "encrypt", "--text", given=b"x" * 11)


@pytest.mark.parametrize("name", ["keystead.kek", "keys.db", "app.log", "app.log.key"])
@pytest.mark.parametrize(
    "command",
    [["encrypt", "plain", "-o"], ["store", "export"], ["log", "checkpoint", "app.log", "-o"], ["audit", "policy"]],
    ids=" ".join,
)
def test_no_answer_takes_the_place_of_keys_of_a_store_or_of_a_log(
    cli: Cli, folder: Path, name: str, command: list[str]
) -> None:
    Path("plain").write_text("value")
    assert run_process(folder, "log", "seal", "app.log", given=b"a line\n").returncode == 0
    before = Path(name).read_bytes()
    assert "is not replaced" in cli.fails(2, *command, name)
    assert Path(name).read_bytes() == before
