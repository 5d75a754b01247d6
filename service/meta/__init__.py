"""Meta's side: a client of its Graph API, its webhook fields, and a simulator and load generator for its requests."""
