"""Servers that speak Vault's Transit API, started for a test, and what their administrators do."""
