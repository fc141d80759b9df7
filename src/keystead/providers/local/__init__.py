"""KEKs of our own: in a file, from a passphrase, or from key material that somebody else keeps."""
