"""What is claimed of the key services, and the tests that show it: ``file::test`` below ``tests/``.

``faults`` are those of the original designs: F1 to F26 of the key providers for signing (their tests carry the number
in their names), and the twelve of the KMS integration that Keystead takes the place of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SIGNING_FAULTS: Final = range(1, 27)

FAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "a rotation makes data unreadable": (
        "lifecycle/test_rotation.py::test_a_rotation_adds_a_version_and_everything_stays_readable",
        "providers/test_conformance.py::test_rotation_keeps_old_ciphertexts_readable_and_encrypts_under_the_new_version",
    ),
    "a restart makes data unreadable": (
        "manager/test_crypto_service.py::test_fields_outlive_rotation_and_restart",
        "providers/aws/test_manager.py::test_a_store_survives_a_restart_a_rotation_and_a_rewrap",
        "providers/vault/test_manager.py::test_everything_stays_readable_through_rotations_rewrap_and_restart",
    ),
    "each process has data keys of its own": (
        "lifecycle/test_creation.py::test_many_processes_that_start_at_once_end_with_one_active_key",
        "lifecycle/test_creation.py::test_the_loser_of_a_race_for_the_wrap_key_adopts_the_winners",
    ),
    "a missing key and an outage look like failed encryptions": (
        "manager/test_kms_calls.py::test_a_key_that_the_kms_does_not_have_is_not_found",
        "providers/test_guard.py::test_an_outage_that_lasts_surfaces_as_itself_after_three_attempts",
        "providers/aws/test_symmetric.py::test_a_missing_key_is_not_found",
    ),
    "a provider under another name does not decrypt": (
        "providers/test_guard.py::test_every_answer_names_the_instance",
        "providers/test_guard.py::test_the_provider_gets_its_own_name_back",
        "test_config_providers.py::test_several_instances_of_one_kind_are_told_apart_by_their_names",
    ),
    "the order of a context counts, and the key id does not": (
        "providers/test_conformance.py::test_the_order_of_a_context_does_not_matter",
        "providers/test_conformance.py::test_another_key_id_does_not_decrypt",
    ),
    "the context that a text was encrypted with does not decrypt it": (
        "manager/test_kms_calls.py::test_no_context_means_as_stored_and_the_same_is_accepted",
        "manager/test_kms_calls.py::test_a_field_comes_back_in_its_type",
    ),
    "nothing binds an AWS ciphertext to the key that its record names": (
        "providers/aws/test_symmetric.py::test_the_record_names_the_arn_and_the_alias_that_was_typed",
        "providers/aws/test_symmetric.py::test_what_was_encrypted_before_an_alias_moved_stays_readable",
        "providers/aws/test_symmetric.py::test_a_record_moved_to_the_key_an_alias_names_now_does_not_decrypt",
    ),
    "errors of AWS that do not exist are mapped, and those that do are not": (
        "providers/aws/test_errors.py::test_every_error_of_the_kms_model_has_a_mapping",
        "providers/aws/test_errors.py::test_every_error_an_operation_declares_becomes_one_of_ours",
        "providers/aws/test_errors.py::test_every_exception_of_botocore_becomes_one_of_ours_without_its_text",
    ),
    "a schedule of ninety days is told as none": (
        "providers/gcp/test_rotation.py::test_a_schedule_of_ninety_days_is_ninety_days",
    ),
    "configurations and data keys show their secrets": (
        "providers/test_secrets.py::test_no_text_of_a_holder_shows_the_key",
        "providers/test_secrets.py::test_a_data_key_pair_hides_its_key",
        "providers/aws/test_config.py::test_no_text_of_a_holder_shows_a_credential",
        "providers/vault/test_config.py::test_a_configuration_shows_no_secret_and_is_not_copied",
        "providers/pkcs11/test_secrets.py::test_no_text_of_a_holder_shows_the_pin",
    ),
    "values and contexts that are no text fail in the middle": (
        "manager/test_kms_calls.py::test_a_field_comes_back_in_its_type",
        "manager/test_kms_calls.py::test_a_context_that_cannot_be_is_refused",
        "providers/test_conformance.py::test_a_context_that_is_not_text_is_refused",
    ),
}

BARS: Final[Mapping[str, tuple[str, ...]]] = {
    "the loop goes on while calls wait": (
        "providers/test_conformance_faults.py::test_the_event_loop_goes_on_while_a_hundred_calls_wait",
        "providers/test_workers.py::test_the_loop_starts_one_thread_and_that_one_the_others",
        "providers/pkcs11/test_worker.py::test_the_event_loop_goes_on_while_calls_wait",
        "runtime/test_off_loop.py::test_the_first_call_loads_the_primitives_off_the_loop",
        "test_telemetry.py::test_the_guards_first_call_loads_opentelemetry_off_the_loop",
        "providers/gcp/test_config.py::test_grpc_is_loaded_off_the_loop",
        "providers/azure/test_life.py::test_the_sdk_and_the_tls_context_are_loaded_off_the_loop",
        "providers/vault/test_batches.py::test_a_batch_is_encoded_hashed_and_divided_off_the_event_loop",
    ),
    "a thousand items through Vault are as few requests as it takes": (
        "providers/vault/test_batches.py::test_a_thousand_plaintexts_take_as_few_requests_as_the_server_allows",
        "providers/vault/test_batches.py::test_a_thousand_macs_are_three_requests",
        "providers/vault/test_batches.py::test_a_thousand_signatures_are_three_requests",
        "providers/vault/test_batches.py::test_the_limits_are_the_servers",
    ),
    "no token, secret id, PIN or data key is said": (
        "providers/test_conformance_faults.py::"
        "test_no_error_shows_a_key_that_was_to_be_wrapped_or_opened_in_message_frames_or_context",
        "providers/test_conformance_faults.py::"
        "test_no_error_of_another_context_or_of_altered_bytes_shows_the_key_inside",
        "providers/aws/test_sessions.py::test_the_sdk_logs_no_plaintext_key_or_credential_even_at_debug",
        "providers/aws/test_sessions.py::test_no_error_shows_a_credential_in_its_frames",
        "providers/gcp/test_credentials.py::test_neither_tokens_nor_plaintexts_are_logged",
        "providers/azure/test_life.py::test_no_secret_and_no_token_is_ever_said",
        "providers/vault/test_life.py::test_no_log_error_or_traceback_shows_a_credential_or_a_plaintext",
        "providers/pkcs11/test_secrets.py::test_no_error_of_a_login_shows_the_pin_in_message_frames_or_context",
        "providers/pkcs11/test_secrets.py::test_no_error_shows_what_was_to_be_encrypted_or_is_inside_a_ciphertext",
        "providers/pkcs11/test_secrets.py::test_nothing_is_logged_of_pin_or_plaintext",
        "providers/test_secrets.py::test_no_error_on_the_way_from_file_to_key_shows_it",
        "integrations/tamper/test_secrecy.py::test_no_credential_logging",
        "integrations/tamper/test_secrecy.py::test_a_login_that_fails_shows_no_credential",
    ),
    "the policy of each page is exact": (
        "providers/vault/test_permissions.py::"
        "test_without_one_line_of_the_policy_exactly_the_operations_fail_that_need_it",
        "providers/aws/test_policies.py::test_the_policy_of_a_store_allows_what_its_processes_ask_for_and_binds_it",
    ),
}
