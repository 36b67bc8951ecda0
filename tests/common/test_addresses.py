"""What is this machine's or its network's own is never taken for an address of the internet."""

import pytest

from common.addresses import is_public

# IANA's special-purpose registries, multicast, what is not given out, and IPv6 that wraps IPv4.
PRIVATE = """
    0.0.0.0 0.255.255.255 10.0.0.0 10.1.2.3 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254
    169.254.169.254 172.16.0.9 172.31.255.255 192.0.0.8 192.0.0.170 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1
    192.168.1.1 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.250 240.0.0.1
    255.255.255.255
    :: ::1 ::a00:1 ::8.8.8.8 ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::ffff:192.88.99.1 ::ffff:0:8.8.8.8 64:ff9b::a00:1
    64:ff9b::127.0.0.1 64:ff9b:1::1 100::1 100:0:0:1::1 2001::1 2001:0:a00:1::f5ff:fffe 2001:2::1 2001:10::1 2001:20::1
    2001:30::1 2001:db8::1 2002:a00:1::1 2002:808:808::1 2620:4f:8000::1 2a00:1450:4001::5efe:a00:1
    2a00:1450:4001:0:200:5efe:808:808 3fff::1 3fff:fff:ffff::1 4000::1 5f00::1 fc00::1 fd00::1 fe80::1 fe80::1%eth0
    fe80::5efe:a00:1 fec0::1 feff::1 ff02::1 ff0e::1
""".split()
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 93.184.216.34 100.63.255.255 100.128.0.1 172.15.255.255 172.32.0.1 192.0.1.1
    192.88.98.1 192.167.255.255 198.17.255.255 198.20.0.1 223.255.255.255
    ::ffff:93.184.216.34 64:ff9b::808:808 2001:200::1 2001:4860:4860::8888 2003::1 2606:2800:220:1:248:1893:25c8:1946
    2620:fe::fe 2a00:1450:4001:82b::200e 3ffe::1
""".split()


@pytest.mark.parametrize("address", PRIVATE)
def test_private_ones(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_ones(address):
    assert is_public(address)


@pytest.mark.parametrize("text", ["", "example.org", "1.2.3", "01.2.3.4", "2130706433", "1.1.1.1/8", "١.1.1.1"])
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="does not appear"):
        is_public(text)
