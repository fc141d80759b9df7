"""Keyrings, data keys, leases, nodes, declared uses, and the one row of the store's state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
STATES = "'pre-active', 'active', 'decrypt-only', 'disabled', 'pending-destroy', 'destroyed'"
FIXED_KEY_COLUMNS = ("id", "keyring", "version", "purpose", "algorithm", "created", "context")
FIXED_KEYRING_COLUMNS = ("name", "purpose", "algorithm", "wrap_keyring", "created_at")


def upgrade() -> None:
    """Create every table, the rules that keep keys, and the store's random id."""
    schema = context.config.attributes.get("schema")
    _create_state(schema)
    _create_keys(schema)
    _create_coordination(schema)
    if op.get_context().dialect.name == "postgresql":
        _postgresql_rules(f'"{schema}".' if schema else "")
    else:
        _sqlite_rules()


def _create_state(schema: str | None) -> None:
    op.create_table(
        "store_state",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("store_id", sa.String(32), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("restored", sa.Boolean, nullable=False),
        sa.Column("usable_from", sa.String(32), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_store_state"),
        sa.CheckConstraint("id = 1", name="ck_store_state_one_row"),
        sa.CheckConstraint("length(store_id) = 32", name="ck_store_state_store_id_length"),
        schema=schema,
    )
    if op.get_context().dialect.name == "postgresql":
        random_id = "replace(CAST(gen_random_uuid() AS text), '-', '')"
        now = "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24\\:MI\\:SS.US\"Z\"')"
    else:
        random_id = "lower(hex(randomblob(16)))"
        now = "strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'"
    target = f'"{schema}".store_state' if schema else "store_state"
    op.execute(
        sa.text(
            f"INSERT INTO {target} (id, store_id, epoch, restored, usable_from, created_at) "  # noqa: S608
            f"VALUES (1, {random_id}, 1, false, '{revision}', {now})"
        )
    )


def _create_keys(schema: str | None) -> None:
    op.create_table(
        "keyrings",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("algorithm", sa.String(64), nullable=False),
        sa.Column("wrap_keyring", sa.String(255), nullable=False),
        sa.Column("next_version", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_keyrings"),
        sa.CheckConstraint("next_version > 0", name="ck_keyrings_next_version_positive"),
        schema=schema,
    )
    op.create_table(
        "data_keys",
        sa.Column("id", BIG, autoincrement=False, nullable=False),
        sa.Column("keyring", sa.String(255), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("algorithm", sa.String(64), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary),
        sa.Column("wrapped_by", sa.BigInteger),
        sa.Column("kek_provider", sa.String(255)),
        sa.Column("kek_key_id", sa.Text),
        sa.Column("kek_version", sa.Text),
        sa.Column("kek_algorithm", sa.String(64)),
        sa.Column("context", sa.Text, nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("published_epoch", sa.BigInteger, nullable=False),
        sa.Column("activated_at", sa.String(27)),
        sa.Column("rotate_after", sa.String(27)),
        sa.Column("expires_at", sa.String(27)),
        sa.Column("destroy_after", sa.String(27)),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("legacy_version", sa.String(255)),
        sa.PrimaryKeyConstraint("id", name="pk_data_keys"),
        sa.ForeignKeyConstraint(
            ["keyring"], [f"{schema}.keyrings.name" if schema else "keyrings.name"], name="fk_data_keys_keyring"
        ),
        sa.UniqueConstraint("keyring", "version", name="uq_data_keys_keyring_version"),
        sa.UniqueConstraint("legacy_version", name="uq_data_keys_legacy_version"),
        sa.CheckConstraint("id > 0", name="ck_data_keys_id_positive"),
        sa.CheckConstraint("version > 0", name="ck_data_keys_version_positive"),
        sa.CheckConstraint(f"state IN ({STATES})", name="ck_data_keys_state_known"),
        sa.CheckConstraint(
            "(wrapped_key IS NULL) = (state = 'destroyed')", name="ck_data_keys_wrapped_until_destroyed"
        ),
        sa.CheckConstraint("length(wrapped_key) >= 40", name="ck_data_keys_never_a_bare_key"),
        schema=schema,
    )
    active = sa.text("state = 'active'")
    op.create_index(
        "uq_data_keys_one_active",
        "data_keys",
        ["keyring"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
        schema=schema,
    )
    for column in ("wrapped_by", "published_epoch", "rotate_after"):
        op.create_index(f"ix_data_keys_{column}", "data_keys", [column], schema=schema)


def _create_coordination(schema: str | None) -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
        schema=schema,
    )
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.String(255), nullable=False),
        sa.Column("seen_epoch", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_nodes"),
        schema=schema,
    )
    op.create_table(
        "key_uses",
        sa.Column("keyring", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("locator", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("keyring", "name", name="pk_key_uses"),
        sa.ForeignKeyConstraint(
            ["keyring"], [f"{schema}.keyrings.name" if schema else "keyrings.name"], name="fk_key_uses_keyring"
        ),
        schema=schema,
    )


def _sqlite_rules() -> None:
    fixed_key = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in FIXED_KEY_COLUMNS)
    fixed_keyring = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in FIXED_KEYRING_COLUMNS)
    rules = {
        "data_keys_keep": ("DELETE ON data_keys", "1", "data keys are never deleted"),
        "data_keys_fixed": (
            "UPDATE ON data_keys",
            f"{fixed_key} OR (OLD.state = 'destroyed' AND NEW.state <> 'destroyed')",
            "this column of a data key never changes",
        ),
        "keyrings_keep": ("DELETE ON keyrings", "1", "keyrings are never deleted"),
        "keyrings_fixed": (
            "UPDATE ON keyrings",
            f"{fixed_keyring} OR NEW.next_version < OLD.next_version",
            "this column of a keyring never changes",
        ),
    }
    for name, (change, condition, message) in rules.items():
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {change} WHEN {condition} BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )


def _postgresql_rules(prefix: str) -> None:
    fixed_key = " OR ".join(f"NEW.{name} IS DISTINCT FROM OLD.{name}" for name in FIXED_KEY_COLUMNS)
    fixed_keyring = " OR ".join(f"NEW.{name} IS DISTINCT FROM OLD.{name}" for name in FIXED_KEYRING_COLUMNS)
    op.execute(
        f"CREATE FUNCTION {prefix}keystead_refuse() RETURNS trigger LANGUAGE plpgsql AS $rule$ "
        "BEGIN RAISE EXCEPTION USING MESSAGE = 'keys and keyrings are kept; their identity never changes'; END $rule$"
    )
    for table, condition in (
        ("data_keys", f"{fixed_key} OR (OLD.state = 'destroyed' AND NEW.state <> 'destroyed')"),
        ("keyrings", f"{fixed_keyring} OR NEW.next_version < OLD.next_version"),
    ):
        call = f"EXECUTE FUNCTION {prefix}keystead_refuse()"
        op.execute(f"CREATE TRIGGER {table}_keep BEFORE DELETE ON {prefix}{table} FOR EACH ROW {call}")
        op.execute(f"CREATE TRIGGER {table}_keep_all BEFORE TRUNCATE ON {prefix}{table} FOR EACH STATEMENT {call}")
        op.execute(
            f"CREATE TRIGGER {table}_fixed BEFORE UPDATE ON {prefix}{table} FOR EACH ROW WHEN ({condition}) {call}"
        )
