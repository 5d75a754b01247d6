"""The admin listener of receiver and relay: `/livez`, `/readyz`, `/metrics`.

It still answers when the public side is saturated, and is never put behind an Ingress.
"""
