"""Which addresses belong to the internet and which to this machine or its network. Standard library only."""

from __future__ import annotations

import ipaddress

# What IANA's registries keep for special purposes. `ipaddress.is_global` knows less of it, and differs by release.
SPECIAL = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # IETF's assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4, which wraps any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",
    )
]
UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is given out
NAT64 = ipaddress.ip_network("64:ff9b::/96")
ISATAP = (0x00005EFE, 0x02005EFE)  # third quarter of an address whose last one is an IPv4 address behind a tunnel


def is_public(address: str) -> bool:
    """Whether an IP address is global unicast and no tunnel's. IPv4 inside IPv6 (mapped, NAT64) counts for what it is.
    Raises ValueError on a text that is no address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None or ip in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in UNICAST or (int(ip) >> 32) & 0xFFFFFFFF in ISATAP:
            return False
    return not any(ip in network for network in SPECIAL if network.version == ip.version)
