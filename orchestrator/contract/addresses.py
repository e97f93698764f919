"""Addresses that processes listen at."""

import ipaddress

GATEWAY_ADDRESS = "127.0.0.1:8080"  # where the local stack's gateway listens, unless it is said


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
