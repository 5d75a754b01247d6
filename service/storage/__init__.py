"""Durable storage: the inbox, which stores each event before Meta gets its 200, and the relay's deliveries.

`protocols` and `deliveries` specify what every engine must do; `engines` lists the engines. Each engine has a package
of its own, and engines do not import each other.
"""
