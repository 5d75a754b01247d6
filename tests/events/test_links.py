"""Links that Meta renews for each retry are no part of an id; every other link is."""

import json
from typing import Any

import pytest

from service.events import parse


def id_of(**message: Any) -> str:
    change = {
        "field": "messages",
        "value": {"metadata": {"phone_number_id": "106"}, "messages": [{"id": "w", **message}]},
    }
    body = {"object": "whatsapp_business_account", "entry": [{"id": "102", "changes": [change]}]}
    (event,) = parse(json.dumps(body).encode(), received_at=0, nonce="")
    return event.id


@pytest.mark.parametrize("name", ["image_url", "video_url", "thumbnail_url"])
def test_the_signed_links_of_an_ad(name: str) -> None:
    """A retry with a newly signed link is a duplicate."""
    ad = {"source_url": "https://fb.me/abc", "source_id": "1"}
    assert id_of(referral=ad | {name: "https://x?oh=1"}) == id_of(referral=ad | {name: "https://x?oh=2"})
    assert id_of(**{name: "https://x?oh=1"}) != id_of(**{name: "https://x?oh=2"}), "elsewhere it may be what differs"


@pytest.mark.parametrize("holder", ["image", "sticker", "profile_picture"])
def test_the_links_of_media(holder: str) -> None:
    """`url` beside `mime_type`, wherever it is."""
    media = {"id": "m", "mime_type": "image/jpeg", "sha256": "s"}
    first, second = ({"deep": [{holder: media | {"url": url}}]} for url in ("https://1", "https://2"))
    assert id_of(**first) == id_of(**second)
    assert id_of(**{holder: {"url": "https://1"}}) != id_of(**{holder: {"url": "https://2"}})


@pytest.mark.parametrize("referral", [{"source_url": "https://fb.me/"}, {"media_url": "https://x/"}])
def test_a_link_without_a_source_that_it_is_renewed(referral: dict[str, str]) -> None:
    """It stays in the id: two updates never share one."""
    assert id_of(referral=referral) != id_of(referral={name: link + "b" for name, link in referral.items()})
