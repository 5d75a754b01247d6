"""Real servers for the tests: each listens on loopback, can be stopped, killed and restarted, and stops with them."""
