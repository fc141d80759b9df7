"""Vault Transit's named keys and operations, each key a keyring. Knows no HTTP. Spec: docs/spec/transit-v1.md."""
