"""The command line: noun, then verb; ``--json`` everywhere; progress and messages on stderr."""
