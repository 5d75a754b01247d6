"""Addresses that a destination without `internal: true` must not have, in every notation."""

import pytest

from service.relay.forbidden_addresses import is_forbidden


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("169.254.169.254", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("0.0.0.0", True),
        ("::", True),
        ("224.0.0.1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::7f00:1", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:7f00:1::", True),
        ("::127.0.0.1", True),
        ("fd20:ce::254", True),
        ("100.100.100.200", True),
        ("168.63.129.16", True),
        ("192.0.0.192", True),
        ("255.255.255.255", True),
        ("0.1.2.3", True),
        ("fd00:ec2::23", True),
        ("fd00:42::42", True),
        ("ff02::1", True),
        ("64:ff9b:1::a9fe:a9fe", True),
        ("64:ff9b:1:a9fe:a9:fe00::", True),
        ("::ffff:0:169.254.169.254", True),
        ("::ffff:0:7f00:1", True),
        ("2001:0:a9fe:a9fe::", True),
        ("2001:0:5db8:d822:0:0:5601:5601", True),
        ("fd00:ec2::24", False),
        ("::ffff:0:93.184.216.34", False),
        ("64:ff9b::5db8:d822", False),
        ("64:ff9b::192.0.0.193", False),
        ("2002:5db8:d822::", False),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("93.184.216.34", False),
        ("2606:2800:220:1::1", False),
        ("2001:4860:4860::8888", False),
    ],
)
def test_addresses(address: str, *, forbidden: bool) -> None:
    """Loopback, link-local, multicast and metadata addresses are forbidden; private and public ones are not."""
    assert is_forbidden(address) is forbidden
