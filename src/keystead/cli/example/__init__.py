"""The example of ``keystead serve --dev`` in an empty folder."""
