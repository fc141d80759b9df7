"""What an attacker without a key does to a log of the sink, in the three columns in which fapilog-tamper was broken:
naively; with all repaired that takes no key; and with checkpoints, the counterpart of its manifest, signed anew by the
key that he found beside the log. Whoever has the policy, and whoever has the shared key alone, finds each of them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from keystead.integrations.fapilog import SealedSink
from keystead.ledger import LocalSigner, SealedFile, TrustPolicy, Verifier
from keystead.ledger.format.records import Kind, parse_line
from keystead.ledger.reading.files import LogFiles
from keystead.model import EncryptedData
from tests.integrations.fapilog.apps import KEY_TEXT, STREAM, VARIABLE, log_file, messages, policy_of_key, verified
from tests.integrations.fapilog.tampering import (
    EACH,
    Files,
    is_own,
    of_kind,
    places,
    put,
    read,
    repaired,
    with_payload,
)

FILES: Final = 3


class Log(NamedTuple):
    """A log that was closed, what its reader trusts, and a checkpoint that was kept before the last file ended."""

    path: Path
    policy: TrustPolicy
    kept: bytes
    earlier: Path
    foreign: bytes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """Give a log of several files that is made once."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(VARIABLE, KEY_TEXT)
        sink = SealedSink(inner_config={"directory": str(folder / "logs")})
        policy = sink.trust_policy()
        asyncio.run(_write_files(sink, 0, FILES - 1))
        shutil.copytree(folder / "logs", folder / "earlier")
        asyncio.run(sink.rotate())
        kept = asyncio.run(_write_files(sink, FILES - 1, FILES))
        other = SealedSink(inner_config={"directory": str(folder / "other")}, key=bytes(32), stream=STREAM)
        asyncio.run(_write_files(other, 0, 1))
        foreign = next(line for line in read(log_file(folder / "other"))[0] if is_own(line))
        path = log_file(folder / "logs")
        assert verified(path, policy, since=kept, expect_closed=True).valid
        assert verified(path, expect_closed=True).valid
        yield Log(path, policy, kept, folder / "earlier", foreign)


@pytest.fixture
def log(made: Log, folder: Path) -> Log:
    shutil.copytree(made.path.parent, folder)
    return made._replace(path=log_file(folder))


async def _write_files(sink: SealedSink, first: int, last: int) -> bytes:
    for file in range(first, last):
        for number in range(EACH):
            await sink.write({"message": f"record {file}.{number}"})
        if file < last - 1:
            await sink.rotate()
    kept = await sink.checkpoint()
    await sink.stop()
    return kept


def modify(files: Files, log: Log) -> Files:
    files[1][places(files[1])[1]] = files[1][places(files[1])[1]].replace(b"record", b"recopd")
    return files


def delete(files: Files, log: Log) -> Files:
    del files[1][places(files[1])[1]]
    return files


def insert(files: Files, log: Log) -> Files:
    files[1].insert(places(files[1])[1], log.foreign)
    return files


def duplicate(files: Files, log: Log) -> Files:
    place = places(files[1])[1]
    files[1].insert(place, files[1][place])
    return files


def reorder(files: Files, log: Log) -> Files:
    one, other = places(files[1])[:2]
    files[1][one], files[1][other] = files[1][other], files[1][one]
    return files


def cut_the_head(files: Files, log: Log) -> Files:
    del files[0][places(files[0])[0]]
    return files


def cut_the_tail(files: Files, log: Log) -> Files:
    del files[-1][places(files[-1])[-1] :]
    return files


def cut_the_tail_and_close(files: Files, log: Log) -> Files:
    del files[-1][places(files[-1])[-1]]
    return files


def drop_the_first_file(files: Files, log: Log) -> Files:
    return files[1:]


def drop_a_middle_file(files: Files, log: Log) -> Files:
    return [files[0], *files[2:]]


def drop_the_last_file(files: Files, log: Log) -> Files:
    return files[:-1]


def empty_a_file(files: Files, log: Log) -> Files:
    return [*files[:-1], []]


def empty_all(files: Files, log: Log) -> Files:
    return [[] for _ in files]


def garbage_in_every_tag(files: Files, log: Log) -> Files:
    return [[re.sub(rb'"m":"[^"]{43}"\}$', b'"m":"' + b"B" * 42 + b'A"}', line) for line in lines] for lines in files]


def garbage_in_one_tag(files: Files, log: Log) -> Files:
    place = places(files[1])[2]
    files[1][place] = files[1][place][:-45] + b"B" * 42 + b'A"}'
    return files


def _in_notes(files: Files, change: Callable[[str], str]) -> Files:
    def edited(line: bytes) -> bytes:
        return with_payload(line, lambda payload: payload.update(note=change(payload["note"])))

    return of_kind(files, Kind.CHECKPOINT, edited)


def forge_the_origin(files: Files, log: Log) -> Files:
    return _in_notes(files, lambda note: note.replace(STREAM, "example.org/other", 1))


def forge_the_size(files: Files, log: Log) -> Files:
    return _in_notes(files, lambda note: re.sub(r"\n\d+\n", "\n1\n", note, count=1))


def forge_the_root(files: Files, log: Log) -> Files:
    return _in_notes(files, lambda note: re.sub(r"\n[A-Za-z0-9+/]{43}=\n", f"\n{'A' * 43}=\n", note, count=1))


def strip_the_signatures(files: Files, log: Log) -> Files:
    return _in_notes(files, lambda note: note.partition("\n\n")[0] + "\n\n")


def strip_the_checkpoints(files: Files, log: Log) -> Files:
    return [[line for line in lines if parse_line(line).kind != Kind.CHECKPOINT.value] for lines in files]


def set_the_clock(files: Files, log: Log) -> Files:
    place = places(files[1])[1]
    record = parse_line(files[1][place])
    moved = files[1][place].replace(b'"t":%d' % record.time_ms, b'"t":%d' % (record.time_ms + 1), 1)
    files[1][place] = moved
    return files


def roll_back(files: Files, log: Log) -> Files:
    return read(log.earlier / log.path.name)


def name_the_key(key_id: str) -> Callable[[Files, Log], Files]:
    def renamed(wrapped: str) -> str:
        found = EncryptedData.parse(wrapped)
        return str(replace(found, key_reference=replace(found.key_reference, key_id=key_id)))

    def rename(files: Files, log: Log) -> Files:
        def change(payload: dict[str, Any]) -> None:
            payload["session"]["key"] = renamed(payload["session"]["key"])

        return of_kind(files, Kind.FILE, lambda line: with_payload(line, change))

    return rename


def without_a_key(files: Files, log: Log) -> Files:
    def change(payload: dict[str, Any]) -> None:
        payload["session"].update(algorithm="SHA-256", key=None, epoch_s=0)

    return of_kind(files, Kind.FILE, lambda line: with_payload(line, change))


def malform(new: bytes) -> Callable[[Files, Log], Files]:
    def put_in(files: Files, log: Log) -> Files:
        files[1][places(files[1])[1]] = new
        return files

    return put_in


ATTACKS: Final[dict[str, Callable[[Files, Log], Files]]] = {
    "modify": modify,
    "set the clock": set_the_clock,
    "delete in the middle": delete,
    "insert a foreign record": insert,
    "duplicate": duplicate,
    "reorder": reorder,
    "cut the head": cut_the_head,
    "cut the tail": cut_the_tail,
    "cut the tail, and close": cut_the_tail_and_close,
    "empty the last file": empty_a_file,
    "empty all files": empty_all,
    "garbage in every tag": garbage_in_every_tag,
    "garbage in one tag": garbage_in_one_tag,
    "forge the origin": forge_the_origin,
    "forge the size": forge_the_size,
    "forge the root": forge_the_root,
    "strip the signatures": strip_the_signatures,
    "strip the checkpoints": strip_the_checkpoints,
    "drop the first file": drop_the_first_file,
    "drop a middle file": drop_a_middle_file,
    "drop the last file": drop_the_last_file,
    "roll back": roll_back,
    "name another key": name_the_key("../evil"),
    "name a variable": name_the_key("HOME"),
    "do without a key": without_a_key,
    **{
        f"malformed {place}": malform(line)
        for place, line in enumerate(
            [
                b"",
                b"[1]",
                b"5",
                b"{",
                b"\xff\xfe",
                b"[" * 100_000,
                b'{"n":4,"t":1,"d":1,"m":"A"}',
                b'{"n":4,"t":1,"d":1,"m":5}',
                b'{"n":-4,"t":1,"d":1,"m":"' + b"A" * 43 + b'"}',
                b'{"n":%s,"t":1,"d":1,"m":"' % (b"9" * 18) + b"A" * 43 + b'"}',
                b'{"n":%s,"t":1,"d":1,"m":"' % (b"9" * 19) + b"A" * 43 + b'"}',
                b'{"n":4,"t":1,"k":"file","d":[1],"m":"' + b"A" * 43 + b'"}',
                b'{"n":4,"t":1,"k":"checkpoint","d":{"note":5},"m":"' + b"A" * 43 + b'"}',
                b'{"n":4,"t":1,"k":"nothing","d":{},"m":"' + b"A" * 43 + b'"}',
            ]
        )
    },
}
UNSEEN_BY_THE_KEY_ALONE: Final = {"roll back"}
"""Whoever trusts no signer holds no checkpoint that a whole log of an earlier day contradicts."""


def naively(files: Files, log: Log) -> Files:
    return files


def with_all_repaired(files: Files, log: Log) -> Files:
    return repaired(files, stream=STREAM)


def with_checkpoints_signed_anew(files: Files, log: Log) -> Files:
    signer = LocalSigner.from_file(log.path.with_name(f"{log.path.name}.key"), STREAM)
    return repaired(files, signer, stream=STREAM)


COLUMNS: Final = [naively, with_all_repaired, with_checkpoints_signed_anew]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_is_found_by_the_policy_and_by_the_key_alone(
    log: Log, attack: str, column: Callable[[Files, Log], Files]
) -> None:
    whole = read(log.path)
    attacked = ATTACKS[attack]([list(lines) for lines in whole], log)
    attacked = column(attacked, log)
    assert attacked != whole
    put(log.path, attacked)
    report = verified(log.path, log.policy, since=log.kept, expect_closed=True)
    assert not report.valid
    assert report.errors[0].message
    if attack not in UNSEEN_BY_THE_KEY_ALONE:
        assert not verified(log.path, expect_closed=True).valid


@pytest.mark.parametrize("column", COLUMNS, ids=lambda each: each.__name__)
def test_the_columns_by_themselves_change_nothing_that_verifies(
    log: Log, column: Callable[[Files, Log], Files]
) -> None:
    put(log.path, column(read(log.path), log))
    assert verified(log.path, log.policy, since=log.kept, expect_closed=True).valid


@pytest.mark.parametrize("key_id", ["default", "../evil", "HOME", "FAPILOG_TAMPER_KEY"])
def test_a_log_written_anew_under_another_key_and_signed_by_the_stolen_one_is_found(
    log: Log, tmp_path: Path, key_id: str
) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    shutil.copy(log.path.with_name(f"{log.path.name}.key"), evil)
    sink = SealedSink(inner_config={"directory": str(evil)}, key=bytes(32), key_id=key_id)
    asyncio.run(_written(sink, "forged"))
    put(log.path, read(log_file(evil)))
    for policy in (log.policy, policy_of_key()):
        report = verified(log.path, policy, expect_closed=True)
        assert not report.valid


def test_a_log_written_anew_without_a_key_and_signed_by_the_stolen_one_is_found(log: Log, tmp_path: Path) -> None:
    evil = tmp_path / "evil.jsonl"
    signer = LocalSigner.from_file(log.path.with_name(f"{log.path.name}.key"), STREAM)
    with SealedFile(evil, stream=STREAM, kms=None, signer=signer) as forged:
        forged.append(b'{"message":"forged"}')
    put(log.path, read(evil))
    for policy in (log.policy, policy_of_key()):
        report = verified(log.path, policy, expect_closed=True)
        assert not report.valid
        assert any("SHA-256, which the policy does not accept" in error.message for error in report.errors)


def test_the_log_of_another_stream_under_the_same_key_is_found(log: Log, tmp_path: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(tmp_path / "other")}, stream="example.org/other")
    asyncio.run(_written(sink, "other"))
    put(log.path, read(log_file(tmp_path / "other")))
    assert not verified(log.path, log.policy, expect_closed=True).valid
    header = parse_line(read(log.path)[0][0])
    moved = with_payload(read(log.path)[0][0], lambda payload: payload.update(stream=STREAM))
    assert json.loads(header.payload)["stream"] == "example.org/other"
    put(log.path, [[moved, *read(log.path)[0][1:]]])
    assert not verified(log.path, log.policy, expect_closed=True).valid


def test_what_an_attacker_can_do_is_cut_an_open_log_behind_the_checkpoint_that_is_held(log: Log) -> None:
    files = read(log.path)
    place = places(files[-1])[-1]
    put(log.path, [*files[:-1], files[-1][:place]])
    with Verifier(log.policy) as verifier:
        assert verifier.verify(log.path).valid
        assert not verifier.verify(log.path).closed
        assert not verifier.verify(log.path, log.kept).valid
        assert not verifier.verify(log.path, expect_closed=True).valid
    assert len(messages(log.path)) == EACH - 1


def test_a_folder_without_the_log_is_no_valid_log(log: Log) -> None:
    for ended in LogFiles(log.path).ended().values():
        ended.unlink()
    log.path.write_bytes(b"")
    assert not verified(log.path, log.policy).valid
    assert not verified(log.path).valid


async def _written(sink: SealedSink, message: str) -> None:
    await sink.write({"message": message})
    await sink.stop()
