"""Short-lived links that Meta renews on each retry: they are no part of an event's id.

Each needs a source that it is renewed; a link without one stays in the digest, so that two updates never share an id.
"""

from collections.abc import Mapping
from typing import Any, Final

# The `url` of a media object (image, video, audio, document, sticker, voice; profile pictures of groups) is valid for
# five minutes. Source: Meta, "Webhooks > messages > media", since 2025-11-12.
_MEDIA_MARK: Final = "mime_type"
_MEDIA_LINK: Final = "url"
# The signed links of an ad that a message refers to: `oh` and `oe` in their query change with each retry. Source: Meta,
# "messages webhook reference > referral object"; and retries of one notification.
_LINKS_IN: Final[Mapping[str, frozenset[str]]] = {"referral": frozenset(("image_url", "video_url", "thumbnail_url"))}
_NONE: Final[frozenset[str]] = frozenset()


def without_renewed(item: Any, name: str = "") -> Any:
    """Return *item*, which is the member *name* of another object, without the links that Meta renews."""
    if isinstance(item, list):
        return [without_renewed(each, name) for each in item]
    if not isinstance(item, dict):
        return item
    renewed = _LINKS_IN.get(name, _NONE)
    is_media = _MEDIA_MARK in item
    return {
        key: without_renewed(value, key)
        for key, value in item.items()
        if not (key in renewed or (is_media and key == _MEDIA_LINK))
    }
