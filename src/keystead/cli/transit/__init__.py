"""``keystead transit``: keys of the machine API."""
