"""The audit trail of a store: entries beside the changes they tell of, sealed into a log by one process at a time.

``AuditOptions`` says how a trail is kept, ``audit_actor`` on whose behalf something is done, and ``Witness`` who is
asked to cosign. Spec: docs/spec/audit-v1.md; decisions: docs/adr/0030-audit-trail.md.
"""

from keystead.ledger.audit.actor import audit_actor
from keystead.ledger.audit.exporting import Witness
from keystead.ledger.audit.options import AuditOptions

__all__ = ["AuditOptions", "Witness", "audit_actor"]
