"""Callback URLs: which are the same, and which Meta never calls."""

import pytest

from service.meta.graph.urls import same, why_not_called

URL = "https://wa.example.com/webhooks"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (URL, "HTTPS://WA.Example.COM/webhooks"),
        (URL, "https://wa.example.com:443/webhooks"),
        ("https://wa.example.com", "https://wa.example.com/"),
        ("https://b\u00fccher.example/x", "https://xn--bcher-kva.example/x"),
        (URL, "https://wa.example.com./webhooks"),
    ],
)
def test_the_same_written_otherwise(one: str, other: str) -> None:
    """Host and scheme in any case, the usual port, no path, a name in its own letters."""
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    "other",
    [
        "https://wa.example.com/Webhooks",
        "https://wa.example.com/webhooks/",
        "https://wa.example.com/webhooks?a=1",
        "https://wa.example.com:8443/webhooks",
        "http://wa.example.com/webhooks",
        "https://wa.example.com:x/webhooks",
        "https://[",
        "",
    ],
)
def test_another_one(other: str) -> None:
    """A path's case and its last slash count."""
    assert not same(URL, other)
    assert not same(other, URL)


@pytest.mark.parametrize("url", ["http://wa.example.com/webhooks", "https://wa.example.com/a+b"])
def test_what_meta_never_calls(url: str) -> None:
    """Without TLS, or with what it sends otherwise."""
    assert why_not_called(url)
    assert why_not_called(URL) is None
