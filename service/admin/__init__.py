"""The admin listener of receiver and relay: `/livez`, `/readyz`, `/metrics`.

It answers while the public listener is saturated. Never expose it through an Ingress.
"""
