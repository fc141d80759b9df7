"""One key wrapped under several KEKs."""
