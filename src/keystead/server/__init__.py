"""The key service over HTTP. Does no SQL and no cryptography."""
