"""Real services that tests run against: each installed in an environment of its own, started and stopped by tests."""
