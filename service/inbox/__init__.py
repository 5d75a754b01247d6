"""Durable state: the log that keeps every event before Meta gets its 200.

`base` promises, `sqlite` and `memory` keep, `writer` commits together what all requests hand over. Engines do not
know each other; a new one is one module here, one line in `engine`, and one in the fixture of `tests/contract`.
"""
