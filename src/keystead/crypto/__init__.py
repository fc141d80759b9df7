"""Bytes in, bytes out: envelope, context, nonces, keyring, codec, blind index, root key, stream, legacy readers."""
