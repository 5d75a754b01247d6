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
        ("http://wa.example.com:80/webhooks", "HTTP://wa.example.com/webhooks"),
        ("https:///webhooks", "https:/webhooks"),
        ("https://WA..example.com/", "https://wa..example.com"),
        ("https://[", "https://["),
    ],
)
def test_equal_urls(one: str, other: str) -> None:
    """The case of scheme and host, the default port, an empty path and the encoding of the name do not matter."""
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    "other",
    [
        "https://wb.example.com/webhooks",
        "https://wa.example.com.example/webhooks",
        "https://wa.example.com/Webhooks",
        "https://wa.example.com/webhooks/",
        "https://wa.example.com/webhooks?a=1",
        "https://wa.example.com:8443/webhooks",
        "http://wa.example.com/webhooks",
        "http://wa.example.com:443/webhooks",
        "https:///webhooks",
        "https://wa.example.com:x/webhooks",
        "https://wa.example.com:0/webhooks",
        "https://a:b@wa.example.com/webhooks",
        "https://wa.example.com/webhooks#x",
        "https://wa.example.com/web\thooks",
        "https://[",
        "",
    ],
)
def test_different_urls(other: str) -> None:
    """A path's case and its final slash matter."""
    assert not same(URL, other)
    assert not same(other, URL)


@pytest.mark.parametrize("other", ["https://XXXX/webhooks", "https://wa..example.com/webhooks"])
def test_invalid_host_names(other: str) -> None:
    """A missing or invalid host name equals no other."""
    assert not same("https:///webhooks", other)
    assert not same("https://wb..example.com/webhooks", other)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://wa.example.com/webhooks", "Meta calls https only, with a certificate of a public authority."),
        ("https://wa.example.com/a+b", "Meta sends a + in the path as a space: use another character."),
        ("https://wa.example.com/webhooks?a=1+2", None),
        (URL, None),
    ],
)
def test_what_meta_never_calls(url: str, why: str | None) -> None:
    """A URL without TLS, or with a + in its path."""
    assert why_not_called(url) == why


def test_users() -> None:
    """User and password matter, although Meta accepts no URL with them."""
    assert not same("https://a:b@wa.example.com/", "https://c:d@wa.example.com/")
    assert same("https://a:b@wa.example.com/", "https://a:b@WA.example.com/")


def test_sharp_s() -> None:
    """\u00df and ss are different names, although an older rule (IDNA 2003) mapped one to the other."""
    assert not same("https://stra\u00dfe.example/x", "https://strasse.example/x")
    assert same("https://stra\u00dfe.example/x", "https://xn--strae-oqa.example/x")
