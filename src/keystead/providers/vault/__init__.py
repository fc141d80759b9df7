"""The Transit engine of HashiCorp Vault and OpenBao, one subject a file."""
