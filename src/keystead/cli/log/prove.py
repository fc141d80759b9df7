"""``keystead log checkpoint``, ``prove`` and ``verify-proof``: what a log's reader keeps, and hands on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.frame import Call, say, wrong_usage
from keystead.cli.log.policy import Log, Policy, finding_out, policy_of, required_policy
from keystead.cli.render import Outcome
from keystead.cli.targets import STDOUT, open_target
from keystead.errors import (
    CouldNotVerifyError,
    InvalidInputError,
    InvalidProofError,
    InvalidSignatureError,
    KMSError,
)
from keystead.ledger import LocalSigner, ProofBundle, TrustPolicy, record_line
from keystead.ledger import prove as prove_record
from keystead.ledger.format.records import MAX_LINE_BYTES, MalformedRecordError, parse_line
from keystead.ledger.reading.checkpoints_kept import last_checkpoint, witnessed
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.checkpoint_signers import name_for
from keystead.ledger.tlog.key_file import ed25519_key
from keystead.ledger.tlog.note import MAX_NOTE_BYTES, Note
from keystead.ledger.tlog.proof import MAX_PROOF_BYTES

Output = Annotated[
    str | None, typer.Option("-o", "--output", metavar="OUT", help="The file to write, complete or not at all.")
]


def checkpoint(
    call: Call,
    file: Log,
    *,
    vkey: Annotated[bool, typer.Option("--vkey", help="Print the verifier keys of who signs, instead.")] = False,
    witness: Annotated[
        list[str] | None, typer.Option("--witness", metavar="URL", help="Have it cosigned there; may be given again.")
    ] = None,
    policy: Policy = None,
    output: Output = None,
) -> Outcome | None:
    """Print the last signed checkpoint of a log: who keeps it notices when the log loses what it had then.

    Reads the log only, and checks that it is what the checkpoint says. With --witness the policy's quorum has to
    cosign, all that are named where it has none; their keys are those of the policy.
    Exit codes: 0 done; 1 failed; 3 log and checkpoint do not fit, or a witness has seen another log; 4 a witness could
    not be asked.
    """
    if vkey:
        return _vkeys(file, policy)
    if not witness:
        found, note = last_checkpoint(file)
        names: set[str] = set()
    else:
        given = required_policy(policy, file)
        if not given.witnesses:
            wrong_usage(
                "the policy names no witness whose key could check what one answers: add its vkey to `witnesses`"
            )
        asked = witnessed(file, witness, given.witnesses)
        for failure in asked.failures.values():
            say(f"warning: {failure}")
        if len(asked.witnesses) < (given.quorum or len(witness)):
            raise _worst(list(asked.failures.values()))
        found, note, names = asked.checkpoint, asked.note, asked.witnesses
    data = {
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "note": note.decode(),
        "witnesses": sorted(names),
        "output": output,
    }
    return written(call, note, output, data)


def prove(
    call: Call,
    file: Log,
    *,
    index: Annotated[int, typer.Option("--index", metavar="N", min=0, help="The record's number.")],
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="FILE", help="One that was kept, cosigned for instance.")
    ] = None,
    without_record: Annotated[
        bool, typer.Option("--without-record", help="Leave the record out; its line is then needed to check the proof.")
    ] = False,
    output: Output = None,
) -> Outcome | None:
    """Write the proof that one record is in a log (c2sp.org/tlog-proof): nobody needs the log, or a key, to check it.

    The record stands in the proof. Exit codes: 0 done; 1 failed, for instance since no checkpoint is over the record
    yet; 3 the log is not what its checkpoint says.
    """
    kept = None if checkpoint is None else Path(checkpoint).read_bytes()[: MAX_NOTE_BYTES + 1]
    bundle = prove_record(file, index, kept)
    if not without_record:
        bundle = ProofBundle(bundle.index, bundle.hashes, bundle.checkpoint, record_line(file, index))
    content = bundle.render()
    data = {"index": index, "hashes": len(bundle.hashes), "proof": content.decode(), "output": output}
    return written(call, content, output, data)


def verify_proof(
    call: Call,
    proof: Annotated[str, typer.Argument(metavar="PROOF", help="A .tlog-proof.")],
    policy: Annotated[str, typer.Option("--policy", metavar="FILE", help="Whose checkpoints count.")],
    record: Annotated[
        str | None, typer.Option("--record", metavar="FILE", help="The record's line, where the proof is without it.")
    ] = None,
) -> Outcome:
    """Check the proof that a record is in a log, and print the record. Needs neither the log nor a KMS.

    Exit codes: 0 it is; 3 it is not; 4 could not be found out.
    """
    with finding_out():
        trusted = TrustPolicy.load(policy)
        content = Path(proof).read_bytes()[: MAX_PROOF_BYTES + 1]
        given = None if record is None else Path(record).read_bytes()[: MAX_LINE_BYTES + 2].removesuffix(b"\n")
    bundle = ProofBundle.parse(content)
    line = given if given is not None else bundle.extra
    if line is None:
        wrong_usage("the proof is without its record: give the record's line with --record FILE")
    origin = Checkpoint.parse(Note.parse(bundle.checkpoint).text).origin
    if not trusted.covers(origin):
        raise InvalidProofError(f"the proof is of another log than {trusted.stream}")
    try:
        told = parse_line(line)
    except MalformedRecordError:
        raise InvalidProofError("what is to be proved is no record") from None
    keys = [each.key for each in trusted.signers if each.validity.covers(told.time_ms)]
    signed = bundle.verify(line, keys, origin=origin, witnesses=trusted.witnesses, quorum=trusted.quorum)
    if told.number != bundle.index:
        raise InvalidProofError("the record says another number than it has in the log")
    data = {
        "index": bundle.index,
        "stream": origin,
        "size": signed.checkpoint.size,
        "root": signed.checkpoint.root.hex(),
        "time_ms": told.time_ms,
        "record": line.decode("utf-8", "backslashreplace"),
    }
    say(f"record {bundle.index} is in {origin}")
    return Outcome(data, line.decode("utf-8", "backslashreplace"))


def _vkeys(file: str, policy: str | None) -> Outcome:
    """Return who signs: as the policy says, else by the key file beside the log."""
    found = policy_of(policy, file)
    if found is not None:
        keys = [each.key.vkey for each in found.signers]
    else:
        last, _ = last_checkpoint(file)
        keys = [LocalSigner(name_for(last.origin), ed25519_key(f"{os.path.realpath(file)}.key", makes=False)).key.vkey]
    return Outcome({"vkeys": keys}, "\n".join(keys))


def written(call: Call, content: bytes, output: str | None, data: dict[str, object]) -> Outcome | None:
    """Answer a text, or write it into a file."""
    if output in (None, STDOUT):
        return Outcome(data, content.decode().removesuffix("\n"))
    with open_target(output, is_text=True) as target:
        target.write(content)
    return Outcome(data)


def _worst(failures: list[KMSError]) -> KMSError:
    """Return what a command fails with whose witnesses did: that one refused, before that one could not be asked."""
    for each in failures:
        if isinstance(each, InvalidProofError | InvalidSignatureError | InvalidInputError):
            return each
    told = "; ".join(str(each) for each in failures) or "too few witnesses were asked for the policy's quorum"
    return CouldNotVerifyError(f"the checkpoint is not cosigned: {told}")
