"""Everything durable: the inbox that stores each event before Meta gets its 200, and the relay's deliveries.

`protocols` and `deliveries` say what is promised, `engines` which engines there are. All of an engine is in one
package, and engines do not import each other.
"""
