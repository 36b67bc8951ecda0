"""What is this machine's or its network's own is never taken for an address of the internet."""

import pytest

from common.addresses import is_public

PRIVATE = (
    "127.0.0.1 10.1.2.3 172.16.0.9 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 198.18.0.1"
    " :: ::1 fd00::1 fc00::1 fe80::1 fe80::1%eth0 ff02::1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:0a00:0001::1 2001:db8::1"
)


@pytest.mark.parametrize("address", PRIVATE.split())
def test_private_ones(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"])
def test_public_ones(address):
    assert is_public(address)
