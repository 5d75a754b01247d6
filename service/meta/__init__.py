"""Meta's side of the wire: what it sends, for trying out and for load."""
