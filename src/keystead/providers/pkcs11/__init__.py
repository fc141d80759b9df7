"""Tokens and HSMs that speak PKCS #11, one subject a file."""
