"""The one schema, for SQLite and PostgreSQL. The migrations must give exactly these tables; a test compares them."""

from keystead.stores.tables.access import (
    access_roles,
    access_secret_ids,
    api_tokens,
    approvals,
    console_sessions,
    store_rules,
)
from keystead.stores.tables.audit import audit_entries, audit_log, audit_sessions, audit_state
from keystead.stores.tables.columns import MIN_WRAPPED_BYTES, VERSION_TABLE, metadata
from keystead.stores.tables.devices import (
    client_devices,
    client_encryption_keys,
    ready_key_pairs,
    spent_ciphertexts,
    user_credentials,
)
from keystead.stores.tables.fields import (
    fields,
    reencryption_chunks,
    reencryption_listeners,
    reencryption_wishes,
    reencryptions,
)
from keystead.stores.tables.keys import (
    IMMUTABLE_KEY_COLUMNS,
    IMMUTABLE_KEYRING_COLUMNS,
    MAY_BE_PATTERN,
    data_keys,
    job_runs,
    key_uses,
    keyrings,
    leases,
    nodes,
    store_state,
)
from keystead.stores.tables.metrics import (
    device_metric_counts,
    encryption_metrics,
    key_failure_counts,
    key_metric_counts,
    metric_counts,
)
from keystead.stores.tables.subjects import erasure_state, subjects
from keystead.stores.tables.transit import transit_keys, transit_settings

__all__ = [
    "IMMUTABLE_KEYRING_COLUMNS",
    "IMMUTABLE_KEY_COLUMNS",
    "MAY_BE_PATTERN",
    "MIN_WRAPPED_BYTES",
    "VERSION_TABLE",
    "access_roles",
    "access_secret_ids",
    "api_tokens",
    "approvals",
    "audit_entries",
    "audit_log",
    "audit_sessions",
    "audit_state",
    "client_devices",
    "client_encryption_keys",
    "console_sessions",
    "data_keys",
    "device_metric_counts",
    "encryption_metrics",
    "erasure_state",
    "fields",
    "job_runs",
    "key_failure_counts",
    "key_metric_counts",
    "key_uses",
    "keyrings",
    "leases",
    "metadata",
    "metric_counts",
    "nodes",
    "ready_key_pairs",
    "reencryption_chunks",
    "reencryption_listeners",
    "reencryption_wishes",
    "reencryptions",
    "spent_ciphertexts",
    "store_rules",
    "store_state",
    "subjects",
    "transit_keys",
    "transit_settings",
    "user_credentials",
]
