"""What is claimed of the log, and the tests that show it: none of them may be renamed or go away unnoticed."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from soak.scenarios import SCENARIOS

TESTS: Final = Path(__file__).resolve().parents[1]

CLAIMS: Final = {
    "ledger/test_attacks.py": {
        "every attack of the table, bare": "test_an_attack_is_found_as_it_is",
        "every attack, repaired": "test_an_attack_is_found_with_everything_repaired_that_takes_no_key",
        "every attack, its checkpoints edited": "test_an_attack_is_found_with_the_checkpoints_edited_to_fit",
        "a cut of an open log": "test_a_cut_of_an_open_log_is_found_by_who_kept_a_later_checkpoint",
        "rollback of file and state": "test_files_and_state_that_were_rolled_back_are_found",
        "key swap by a name": "test_a_log_sealed_anew_under_another_key_is_not_trusted",
        "key swap by a KMS": "test_a_log_sealed_anew_by_another_kms_of_the_same_name_is_not_trusted",
        "algorithm confusion, no key": "test_a_log_sealed_anew_without_a_key_is_not_accepted",
        "algorithm confusion, a public key": "test_a_public_key_is_no_key_of_a_mac",
        "CVE-2023-31437, hidden records": "test_a_view_of_a_log_that_is_valid_leaves_no_record_out",
    },
    "ledger/test_witnessing.py": {
        "rollback, to a witness": "test_a_log_put_back_with_all_its_state_is_refused",
        "equivocation between two readers": "test_two_readers_who_were_shown_different_logs_find_out",
    },
    "ledger/test_checkpoint.py": {
        "algorithm confusion, a witness's key": "test_a_key_for_notes_is_no_witnesss",
        "tessera": "test_checkpoints_of_a_log_of_another_implementation",
        "sunlight": "test_cosigned_checkpoints_of_another_implementation",
        "sigstore": "test_checkpoints_of_rekor",
    },
    "ledger/test_checking_sessions.py": {
        "CVE-2023-31438, truncate and continue": "test_epochs_cannot_be_cut_away_and_called_empty",
        "CVE-2023-31439, re-sealed in a later epoch": "test_an_old_record_sealed_again_by_a_later_key_is_found",
    },
    "cli/test_log_witness.py": {
        "equivocation, on the command line": "test_of_two_views_of_one_log_a_witness_cosigns_one",
        "torchwood, over HTTP": "test_the_dialogue_of_another_implementation_over_http",
        "checkpoint --witness": "test_a_witnessed_checkpoint_catches_a_log_that_was_cut",
    },
    "ledger/test_hostile.py": {
        "a log that was put back": "test_a_log_that_was_put_back_to_an_earlier_file_is_not_gone_on_with",
        "acknowledged is on disk": "test_a_flush_says_nothing_is_on_disk_that_waits_for_the_next_file",
        "rotation while it is read": "test_a_live_log_verifies_while_it_is_written_and_rotates",
        "progress": "test_progress_tells_every_byte_of_the_files",
    },
    "ledger/test_fuzz.py": {
        "random edits": "test_no_edit_goes_unseen_and_none_is_an_exception",
    },
    "soak/test_scenarios.py": {
        "ten million random edits, a thousand kills, ten million records": "test_a_scenario_meets_every_bar",
    },
    "ledger/test_log_crashes.py": {
        "nothing acknowledged is lost by a kill": "test_what_was_acknowledged_outlives_a_kill_at_any_moment",
        "power cuts": "test_a_disk_that_lost_the_middle_of_what_was_not_acknowledged_is_no_alarm",
    },
    "ledger/test_log_sessions.py": {
        "clock steps": "test_a_clock_that_is_set_is_written_down_and_no_alarm",
        "rotation in mid-file": "test_a_rotated_kms_key_begins_another_session",
    },
    "ledger/test_log_rotation.py": {
        "compression": "test_files_that_ended_are_compressed",
    },
    "ledger/test_log_kek.py": {
        "another KEK": "test_another_kek_of_this_machine_is_refused_before_anything_is_written",
        "a rotated KEK": "test_a_kek_that_was_replaced_by_a_next_version_goes_on_and_the_whole_log_verifies",
    },
    "ledger/test_sealed_file.py": {
        "restart": "test_a_log_goes_on_where_it_ended",
    },
    "ledger/test_proving.py": {
        "proof of one record by the index": "test_one_record_among_many_is_found_by_reading_little",
        "proof without the index": "test_a_log_without_the_index_is_proved_all_the_same",
        "proof with a lying index": "test_the_index_is_made_anew_where_it_is_absent_stale_or_a_lie",
    },
    "ledger/test_sealer.py": {
        "overhead": "test_a_record_takes_less_than_150_bytes_more_than_what_is_in_it",
    },
    "ledger/test_tree.py": {
        "RFC 6962, inclusion": "test_inclusion_as_published",
        "RFC 6962, consistency": "test_consistency_as_published_but_for_proofs_from_the_empty_tree",
    },
    "ledger/test_witness.py": {
        "torchwood": "test_the_dialogue_of_another_implementation",
        "cosignatures of both kinds": "test_each_of_its_keys_cosigns",
    },
    "ledger/test_interoperability.py": {
        "our checkpoints in tlog-scales": "test_our_checkpoints_verify_there",
        "our cosignatures in tlog-scales": "test_our_cosignatures_verify_there",
        "our proofs in tlog-scales": "test_our_proofs_verify_there",
        "tlog-scales' checkpoints here": "test_its_checkpoints_and_cosignatures_verify_here",
        "tlog-scales' proofs here": "test_its_proofs_verify_here",
    },
    "providers/test_conformance_log.py": {
        "data-key mode on each provider": "test_a_log_is_sealed_under_a_session_key_of_the_kms",
        "native signing on each provider": "test_a_kms_signs_the_checkpoints_of_a_log",
        "native MACs on each provider": "test_a_kms_makes_macs_of_the_checkpoints_of_a_log",
        "rotation on each provider, both sides": "test_records_of_before_and_after_a_rotation_of_the_kms_key_verify",
    },
    "integrations/tamper/test_places.py": {
        "after the TTL": "test_f4_signatures_verify_after_the_time_of_the_key_is_over",
    },
    "integrations/tamper/test_processes.py": {
        "after a restart, on another host": "test_f4_f7_signatures_of_one_process_verify_in_another_after_a_rotation",
    },
    "cli/test_log.py": {
        "exit code 0": "test_lines_are_sealed_as_they_are_and_verify",
        "exit code 3": "test_a_changed_log_is_exit_code_3_with_every_finding",
        "exit code 4": "test_what_is_out_of_reach_is_exit_code_4",
        "--since-checkpoint": "test_a_log_that_was_cut_is_found_by_a_kept_checkpoint",
        "--key-env": "test_a_shared_key_in_the_environment_seals_and_verifies",
        "prove": "test_one_record_is_proved_without_the_log",
        "checkpoint --vkey": "test_the_verifier_key_is_that_of_the_policy_or_of_the_key_beside_the_log",
        "inspect": "test_inspect_needs_no_key",
    },
    "cli/test_log_processes.py": {
        "tail": "test_tail_follows_a_log_from_file_to_file",
    },
}


@cache
def _named_in(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("file", "claim"), [(file, claim) for file in CLAIMS for claim in CLAIMS[file]])
def test_what_is_claimed_of_the_log_has_its_test(file: str, claim: str) -> None:
    assert CLAIMS[file][claim] in _named_in(TESTS / file)


@pytest.mark.parametrize("scenario", ["log-edits", "log-kills", "log-scale"])
def test_the_log_has_its_scenarios(scenario: str) -> None:
    assert scenario in SCENARIOS
