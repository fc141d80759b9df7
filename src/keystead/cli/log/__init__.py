"""``keystead log``: sealed logs."""
