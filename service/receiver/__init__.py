"""The `serve` process: receives Meta's requests, and stores every event before it answers 200."""
