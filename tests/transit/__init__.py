"""Vault's Transit API, as clients of it see a server: recorded answers, random requests, and clients themselves."""
