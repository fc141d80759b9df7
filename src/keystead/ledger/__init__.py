"""The tamper-evident log: trees, checkpoints, proofs, and what signs them."""
