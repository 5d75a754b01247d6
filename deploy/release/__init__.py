"""Prepare and publish a release; docs/releasing.md describes both."""
