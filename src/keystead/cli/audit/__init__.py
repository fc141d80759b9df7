"""``keystead audit``: the audit trail of the store."""
