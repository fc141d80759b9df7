"""Transparency logs as C2SP specifies them: notes, checkpoints, cosignatures and proofs, and who signs them."""
