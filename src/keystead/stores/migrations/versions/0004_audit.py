"""The audit trail: entries that wait, sessions, the log and its state. A release that knows 0001 alone works on.

Until a trail is begun: then no release works that would change keys without a word.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0004"
down_revision = "0003"

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
SEARCHED = (("at",), ("kind", "seq"), ("action", "seq"), ("keyring", "seq"), ("key_id", "seq"))


def upgrade() -> None:
    """Create the tables, and the rule that keeps records as they are."""
    schema = context.config.attributes.get("schema")
    op.add_column("store_state", sa.Column("audited", sa.Boolean), schema=schema)
    _create_entries(schema)
    _create_log(schema)
    if op.get_context().dialect.name == "postgresql":
        prefix = f'"{schema}".' if schema else ""
        op.execute(
            f"CREATE FUNCTION {prefix}keystead_refuse_audit() RETURNS trigger LANGUAGE plpgsql AS $rule$ "
            "BEGIN RAISE EXCEPTION USING MESSAGE = 'records of the audit trail never change'; END $rule$"
        )
        op.execute(
            f"CREATE TRIGGER audit_log_fixed BEFORE UPDATE ON {prefix}audit_log "
            f"FOR EACH ROW EXECUTE FUNCTION {prefix}keystead_refuse_audit()"
        )
        return
    op.execute(
        "CREATE TRIGGER audit_log_fixed BEFORE UPDATE ON audit_log "
        "BEGIN SELECT RAISE(ABORT, 'records of the audit trail never change'); END"
    )


def _create_entries(schema: str | None) -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.LargeBinary(16), nullable=False),
        sa.Column("session", sa.String(32), nullable=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        sa.Column("code", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
        schema=schema,
    )
    op.create_index("ix_audit_entries_session", "audit_entries", ["session"], schema=schema)
    op.create_table(
        "audit_sessions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("begun_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_sessions"),
        sa.CheckConstraint("length(wrapped_key) >= 40", name="ck_audit_sessions_never_a_bare_key"),
        schema=schema,
    )


def _create_log(schema: str | None) -> None:
    op.create_table(
        "audit_log",
        sa.Column("seq", BIG, autoincrement=False, nullable=False),
        sa.Column("line", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.String(16)),
        sa.Column("entry_id", sa.LargeBinary(16)),
        sa.Column("at", sa.String(27)),
        sa.Column("action", sa.String(64)),
        sa.Column("keyring", sa.String(255)),
        sa.Column("key_id", sa.BigInteger),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_log"),
        sa.UniqueConstraint("entry_id", name="uq_audit_log_entry_id"),
        schema=schema,
    )
    for columns in SEARCHED:
        op.create_index(f"ix_audit_log_{'_'.join(columns)}", "audit_log", list(columns), schema=schema)
    op.create_table(
        "audit_state",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("code", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.BigInteger, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("checkpoint_size", sa.BigInteger, nullable=False),
        sa.Column("checkpoint_ms", sa.BigInteger, nullable=False),
        sa.Column("exported_size", sa.BigInteger, nullable=False),
        sa.Column("exported_ms", sa.BigInteger, nullable=False),
        sa.Column("rejected", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_state"),
        sa.CheckConstraint("id = 1", name="ck_audit_state_one_row"),
        schema=schema,
    )
