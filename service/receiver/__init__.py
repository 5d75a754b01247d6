"""The `serve` process: receives Meta's requests, and stores every event before answering 200."""
