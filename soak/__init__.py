"""Crash, race, fuzz and load tests at full length: ``python -m soak [--short] [names...]``.

Each scenario is a class in a file of its own. It runs real processes against real databases, returns figures as data,
and ends by itself. ``make soak`` runs every scenario in full and writes docs/evidence.md; the test suite runs the
short forms.
"""
