"""Benchmarks of Keystead beside other libraries: ``make bench`` writes docs/benchmarks.md and its plot."""
