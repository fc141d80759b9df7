"""Keys of a KMS, of the environment and of files, behind one face that signs and verifies."""
