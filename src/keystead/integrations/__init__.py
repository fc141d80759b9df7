"""Keystead beside other people's software: one module each, imported only by who uses it."""
