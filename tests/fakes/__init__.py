"""Stand-ins for what tests must own: time, and a database server that can be stopped."""
