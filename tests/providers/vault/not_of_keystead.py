"""The tests of the provider that are of what Keystead's own server does not have, and so are run on OpenBao alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_MOUNTS: Final = "there is one engine, and one mount of each way to log in"
_NAMESPACES: Final = "a namespace is a token's tenant"
_WRAPPING: Final = "response wrapping is not offered"
_ROLES: Final = "a role is not changed: it is deleted, and made anew"
_KUBERNETES: Final = "a cluster's tokens log in as JWTs"
NOT_OF_KEYSTEAD: Final[Mapping[str, str]] = {
    "test_ciphertexts_of_another_mount_and_of_the_other_spelling_of_a_key_id_decrypt": _MOUNTS,
    "test_nothing_mounted_and_no_such_namespace_are_told_apart_from_a_missing_key": _MOUNTS,
    "test_a_real_quota_throttles_with_the_time_to_wait": "limits are settings of the service",
    "test_what_can_be_encrypted_can_be_decrypted_up_to_the_servers_limit": "XChaCha20-Poly1305 is not offered",
    "test_a_mac_is_the_raw_hmac_and_names_the_version_that_made_it": "keys are not exported",
    "test_a_token_that_is_not_renewable_is_replaced_by_another_login": "there are no batch tokens",
    "test_a_token_that_may_not_renew_itself_is_replaced_by_another_login": "a token may always renew itself",
    "test_a_token_without_the_default_policy_may_not_ask_what_it_may": "a token may always ask what it may do",
    "test_a_role_may_need_no_secret_id": "every role has secret ids",
    "test_after_a_minute_a_denied_operation_is_tried_with_another_login_as_roles_may_have_changed": _ROLES,
    "test_kubernetes_logs_in_with_the_token_of_the_service_account_and_reads_it_each_time": _KUBERNETES,
    "test_the_document_spells_the_kubernetes_role_as_role_id": _KUBERNETES,
    "test_a_namespace_is_logged_in_to_and_its_keys_are_its_own": _NAMESPACES,
    "test_a_wrapping_token_without_a_secret_id_in_it_is_refused": _WRAPPING,
    "test_a_wrapped_secret_id_is_unwrapped_after_the_server_has_said_what_it_was_made_for": _WRAPPING,
    "test_it_serves_as_many_logins_as_it_is_good_for": _WRAPPING,
    "test_it_serves_any_number_of_logins_where_it_has_no_limit": _WRAPPING,
    "test_another_wrapping_token_in_the_file_is_taken_for_the_next_login": _WRAPPING,
    "test_a_wrapping_token_of_something_else_is_not_opened": _WRAPPING,
    "test_a_stolen_secret_id_in_the_wrapping_of_another_mount_or_namespace_is_not_taken": _WRAPPING,
    "test_a_wrapped_secret_id_of_a_namespace_serves_there": _WRAPPING,
    "test_a_wrapping_token_that_somebody_else_has_opened_is_reported_as_stolen": _WRAPPING,
    "test_a_server_that_cannot_answer_about_a_wrapping_token_is_asked_again": _WRAPPING,
}
"""By the names of tests."""
