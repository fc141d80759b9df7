"""Writing a log: sealing, files, sessions, checkpoints and the witnesses that are asked."""
