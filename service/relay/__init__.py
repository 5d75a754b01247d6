"""The relay: reads the log, works out who gets what, and delivers it, each destination at its own pace.

What belongs here: destinations and their file, the relay's own state, what a delivery looks like and how it is sent.
It never writes the inbox, and the receiver does not know it.
"""
