"""The relay: reads the log, plans which destination gets which events, and delivers to each at its own pace.

What belongs here: destinations and their file, planning and dispatching, and the format and sending of a delivery.
The relay never writes to the inbox, and the receiver does not depend on it.
"""
