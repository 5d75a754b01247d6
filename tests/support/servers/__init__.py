"""Real servers for the tests: each starts on loopback, can be stopped, killed and started again, and ends with them."""
