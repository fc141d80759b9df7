"""Clients of Vault, as people use them: the programs of ``examples/vault-clients``, against real servers."""
