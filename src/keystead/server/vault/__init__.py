"""Vault's wire protocol under ``/v1/transit``, ``/v1/auth`` and ``/v1/sys``: any client of Vault is a client here."""
