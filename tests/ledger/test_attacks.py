"""What somebody can do to a log who has its files, and no key: nothing that is not found.

Each row is an attack, and is made three times: bare; with everything repaired that takes no key to repair, as numbers,
and what files say of those before them; and with the checkpoints edited to fit as well, their signatures left alone.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.crypto.merkle import Frontier, leaf_hash
from keystead.ledger import LocalSigner, SealedFile, TrustPolicy, VerifyReport
from keystead.ledger.format.records import TAIL_BYTES, parse_line, parse_payload, text, to_payload
from keystead.ledger.reading.following import LogFollower
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.testing import FakeKMS
from tests.ledger.files import STREAM, killed, opened, verified
from tests.ledger.logs import kinds

Files = list[list[bytes]]


@dataclass
class Log:
    """A closed log of three files on disk, and what its reader has."""

    path: Path
    kms: FakeKMS
    policy: TrustPolicy
    kept: bytes
    files: Files = field(default_factory=list)

    def names(self) -> list[Path]:
        return [self.path.with_name("app.log.000001"), self.path.with_name("app.log.000002"), self.path]

    def put(self, files: Files) -> None:
        """Write the files in the place of the log's, the last one as the one that is written."""
        for name in self.names():
            name.unlink(missing_ok=True)
        for name, lines in zip([*self.names()[: len(files) - 1], self.path], files, strict=True):
            name.write_bytes(b"".join(line + b"\n" for line in lines))

    def check(self, **options: Any) -> VerifyReport:
        return verified(self.path, self.kms, self.policy, **options)


@pytest.fixture
def log(path: Path, kms: FakeKMS) -> Log:
    """A log of a reader who knows that it was closed, and has kept a checkpoint of its second file."""
    with opened(path, kms) as written:
        for number in range(3):
            written.append_many([b'{"file":%d,"event":%d}' % (number, event) for event in range(6)])
            if number == 1:
                kept = written.checkpoint()
            if number < 2:
                written.rotate()
        policy = written.trust_policy()
    made = Log(path, kms, policy, kept)
    made.files = [each.read_bytes().splitlines() for each in made.names()]
    assert made.check(since=kept, expect_closed=True).valid
    return made


def modified(files: Files) -> None:
    files[1][3] = files[1][3].replace(b'"event":2', b'"event":9')


def deleted(files: Files) -> None:
    del files[1][3]


def inserted(files: Files) -> None:
    files[1].insert(3, b'{"n":%d,"t":1900000000000,"d":{"event":"foreign"},"m":"%b"}' % (15, b"A" * 43))


def replayed(files: Files) -> None:
    files[1].insert(5, files[1][2])


def reordered(files: Files) -> None:
    files[1][2], files[1][4] = files[1][4], files[1][2]


def head_cut(files: Files) -> None:
    del files[0][1:4]


def first_file_dropped(files: Files) -> None:
    del files[0]


def tail_cut(files: Files) -> None:
    del files[2][4:]


def emptied(files: Files) -> None:
    files[2].clear()


def gutted(files: Files) -> None:
    """Nothing but the first record of the last file is left."""
    del files[2][1:]


def all_emptied(files: Files) -> None:
    for lines in files:
        lines.clear()


def garbage_tags(files: Files) -> None:
    for lines in files:
        lines[:] = [line[:-45] + base64.b64encode(sha256(line).digest())[:43] + b'"}' for line in lines]


def header_forged(files: Files) -> None:
    header: Any = parse_payload(parse_line(files[1][0]).payload)
    header["session"]["start"] += 86_400_000
    files[1][0] = with_payload(files[1][0], header)


def last_file_dropped(files: Files) -> None:
    del files[2]


def middle_file_dropped(files: Files) -> None:
    del files[1]


def files_exchanged(files: Files) -> None:
    files[0], files[1] = files[1], files[0]


def member_twice(files: Files) -> None:
    files[1][3] = files[1][3].replace(b'"d":{', b'"d":{"event":99,')


def checkpoints_dropped(files: Files) -> None:
    for lines in files:
        lines[:] = [line for line in lines if b'"k":"checkpoint"' not in line]


def checkpoint_of_another_root(files: Files) -> None:
    other = base64.b64encode(b"r" * 32).decode()
    each_note(files, lambda note: re.sub(r"(?<=\n)[A-Za-z0-9+/]{43}=(?=\n)", other, note))


def checkpoint_of_another_size(files: Files) -> None:
    each_note(files, lambda note: re.sub(r"\n(\d+)\n", lambda found: f"\n{int(found[1]) - 1}\n", note, count=1))


def signature_stripped(files: Files) -> None:
    each_note(files, lambda note: note.partition("\n\n")[0] + "\n\n")


def signature_replaced(files: Files) -> None:
    """By one of a key of the attacker's that has the same name."""
    signer = LocalSigner(STREAM, Ed25519PrivateKey.generate())
    each_note(files, lambda note: Note(Note.parse(note.encode()).text, (signer.sign(_text(note)),)).render().decode())


def malformed(line: bytes) -> Callable[[Files], None]:
    def attack(files: Files) -> None:
        files[1][3] = line

    return attack


ATTACKS: dict[str, Callable[[Files], None]] = {
    "modify a payload": modified,
    "delete in the middle": deleted,
    "insert a foreign record": inserted,
    "duplicate or replay a record": replayed,
    "reorder": reordered,
    "head truncation": head_cut,
    "drop the first file": first_file_dropped,
    "tail truncation": tail_cut,
    "empty a file": emptied,
    "gut a file": gutted,
    "empty every file": all_emptied,
    "garbage in every tag": garbage_tags,
    "forge what a file says of itself": header_forged,
    "drop the last file": last_file_dropped,
    "drop a middle file": middle_file_dropped,
    "exchange files": files_exchanged,
    "a JSON key twice": member_twice,
    "drop the checkpoints": checkpoints_dropped,
    "edit a checkpoint's root": checkpoint_of_another_root,
    "edit a checkpoint's size": checkpoint_of_another_size,
    "strip the signatures": signature_stripped,
    "sign by another key of the same name": signature_replaced,
    "a tag that is no tag": malformed(b'{"n":13,"t":1900000000000,"d":1,"m":"A"}'),
    "a tag that is a number": malformed(b'{"n":13,"t":1900000000000,"d":1,"m":5}'),
    "a line that is a list": malformed(b"[1]"),
    "a line that is a list in the place of a record": malformed(b'{"integrity":[1]}'),
    "a line that is no UTF-8": malformed(b"\xff\xfe\x00"),
    "a number beyond all numbers": malformed(b'{"n":99999999999999999999999,"t":1,"d":1,"m":"A"}'),
}


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_is_found_as_it_is(log: Log, name: str) -> None:
    ATTACKS[name](log.files)
    log.put(log.files)
    assert not log.check(expect_closed=True).valid
    assert not log.check(since=log.kept, expect_closed=True).valid


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_is_found_with_everything_repaired_that_takes_no_key(log: Log, name: str) -> None:
    ATTACKS[name](log.files)
    log.put(list(repaired(log.files)))
    assert not log.check(expect_closed=True).valid


@pytest.mark.parametrize("name", [name for name in ATTACKS if not name.startswith("edit a checkpoint")])
def test_an_attack_is_found_with_the_checkpoints_edited_to_fit(log: Log, name: str) -> None:
    ATTACKS[name](log.files)
    files = list(repaired(log.files))
    fitted(files)
    log.put(files)
    assert not log.check(expect_closed=True).valid


@pytest.mark.parametrize("name", ["tail truncation", "drop the last file"])
def test_a_cut_of_an_open_log_is_found_by_who_kept_a_later_checkpoint(path: Path, kms: FakeKMS, name: str) -> None:
    log = opened(path, kms)
    for number in range(3):
        log.append_many([b"1"] * 6)
        if number < 2:
            log.rotate()
    kept = log.checkpoint()
    made = Log(path, kms, log.trust_policy(), kept)
    made.files = [each.read_bytes().splitlines() for each in made.names()]
    assert made.check(since=kept).valid
    ATTACKS[name](made.files)
    made.put(made.files)
    assert "rolled_back" in kinds(made.check(since=kept))
    log._log.forget()


def test_files_and_state_that_were_rolled_back_are_found(path: Path, kms: FakeKMS, tmp_path: Path) -> None:
    """Every file beside the log is put back as well: there is nothing there that a reader believes."""
    with opened(path, kms) as log:
        log.append(b"1")
        policy = log.trust_policy()
    early = {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()}
    with opened(path, kms) as log:
        log.append(b"2")
        kept = log.checkpoint()
    for name, content in early.items():
        (tmp_path / name).write_bytes(content)
    assert kinds(verified(path, kms, policy, since=kept, expect_closed=True)) == ["rolled_back"]


@pytest.mark.parametrize("key_id", ["../evil", "HOME", "audit2"])
def test_a_log_sealed_anew_under_another_key_is_not_trusted(log: Log, key_id: str) -> None:
    """The key's name comes from the log: it is compared with the policy, and never looked up as a path or variable."""
    for name in log.names():
        name.unlink()
    log.path.with_name("app.log.key").unlink()
    with SealedFile(log.path, stream=STREAM, kms=log.kms, key_id=key_id) as forged:
        forged.append(b"1")
    before = Counter(log.kms.calls)
    report = log.check()
    assert "untrusted" in kinds(report)
    assert log.kms.calls == before


def test_a_log_sealed_anew_by_another_kms_of_the_same_name_is_not_trusted(log: Log) -> None:
    for name in log.names():
        name.unlink()
    with SealedFile(log.path, stream=STREAM, kms=FakeKMS(), key_id="audit") as forged:
        forged.append(b"1")
    assert "untrusted" in kinds(log.check())


def test_a_log_sealed_anew_without_a_key_is_not_accepted(log: Log) -> None:
    """Algorithms come from the policy: a log that says it has no key says it in vain."""
    for name in log.names():
        name.unlink()
    log.path.with_name("app.log.key").unlink()
    with SealedFile(log.path, stream=STREAM, kms=None) as forged:
        forged.append(b"1")
    assert "untrusted" in kinds(log.check())


def test_a_public_key_is_no_key_of_a_mac(log: Log) -> None:
    """Algorithm confusion: what a reader knows of a signer seals nothing."""
    public = log.policy.signers[0].key.material
    for lines in log.files:
        for at, line in enumerate(lines):
            tag = hmac.digest(public, line[:-TAIL_BYTES], "sha256")
            lines[at] = line[:-45] + base64.b64encode(tag)[:43] + b'"}'
    log.put(log.files)
    assert not log.check(expect_closed=True).valid


def test_a_view_of_a_log_that_is_valid_leaves_no_record_out(path: Path, kms: FakeKMS) -> None:
    """CVE-2023-31437 of another log: records that are sealed, and that no reader is shown."""
    log = opened(path, kms)
    policy = log.trust_policy()
    log.append_many([b"1"] * 3)
    log.flush()
    killed(log)
    with path.open("ab") as file:
        file.write(b'{"n":4,"t":19\n\nhalf a line')
    with opened(path, kms) as log:
        log.append_many([b"2"] * 3)
        log.rotate()
        log.append_many([b"3"] * 3)
    report = verified(path, kms, policy, expect_closed=True)
    assert report.errors == []
    shown = [record.number for record in LogFollower(path).since(0)]
    assert shown == list(range(report.size))


def with_payload(line: bytes, payload: Any) -> bytes:
    record = parse_line(line)
    return record.head[: -len(record.payload)] + to_payload(payload) + line[-TAIL_BYTES:]


def each_note(files: Files, edit: Callable[[str], str]) -> None:
    for lines in files:
        for at, line in enumerate(lines):
            if b'"k":"checkpoint"' in line:
                note = text(parse_payload(parse_line(line).payload), "note")
                lines[at] = with_payload(line, {"note": edit(note)})


def repaired(files: Files) -> Iterator[list[bytes]]:
    """Give records their numbers anew, and files what they say of those before them."""
    tree, number, tag = Frontier(), 0, b""
    for file, lines in enumerate(files, 1):
        made = []
        for line in lines:
            made.append(re.sub(rb'^\{"n":\d+,', b'{"n":%d,' % number, line))
            if b'"k":"file"' in line[:60]:
                header: Any = parse_payload(parse_line(made[-1]).payload)
                roots = [base64.b64encode(root).decode() for root in tree.roots]
                repairs = {"file": file, "roots": roots, **({"tag": f"{tag.decode()}="} if tag else {})}
                made[-1] = with_payload(made[-1], {**header, **repairs})
            tree.append(leaf_hash(made[-1]))
            number, tag = number + 1, made[-1][-45:-2]
        yield made


def fitted(files: Files) -> None:
    """Have checkpoints say what is there, with the signatures that they have."""
    tree = Frontier()
    for lines in files:
        for at, line in enumerate(lines):
            if b'"k":"checkpoint"' in line[:60]:
                note = text(parse_payload(parse_line(line).payload), "note")
                told = Checkpoint(STREAM, tree.size, tree.root()).text()
                lines[at] = with_payload(line, {"note": f"{told}\n{note.partition(chr(10) * 2)[2]}"})
            tree.append(leaf_hash(lines[at]))


def _text(note: str) -> str:
    return Note.parse(note.encode()).text
