"""One file for each KMS: how the conformance suite gets a provider of it, and turns its faults on."""
