"""REST for administration: keyrings and keys, tokens, devices, jobs, the audit trail. Keys themselves never leave."""
