"""May a redirect from the upstream lead to this address?

Yes only to public addresses: otherwise whoever answers for the upstream could make the gateway
fetch from the network it stands in (server-side request forgery). The check is made on the
socket address that is about to be connected to, because names answer differently from one
look-up to the next, and because `127.1` or `2130706433` are addresses to the operating system
but not to every parser of URLs.
"""

import ipaddress
import socket
from typing import Any, Final

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, section 2.1
_IPV4_MASK: Final = 0xFFFF_FFFF


class PrivateAddress(OSError):
    """The address is not public; no connection was made to it."""


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return an unconnected socket for a `getaddrinfo` entry, if it is public.

    Raises:
        PrivateAddress: it is not; nothing was connected.
    """
    family, kind, protocol, _, endpoint = address
    if not is_public(str(endpoint[0])):
        raise PrivateAddress("private address")
    return socket.socket(family=family, type=kind, proto=protocol)


def is_public(host: str) -> bool:
    """Return whether host is a numeric address that the whole internet can reach.

    Loopback, private, link-local, multicast and reserved ranges are not, nor are IPv6 forms
    that carry such an IPv4 address (mapped, 6to4, NAT64, Teredo), nor anything that is not an
    address in its canonical spelling.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        carried = _carried_ipv4(address)
        if carried is not None:
            address = carried
    return address.is_global and not address.is_multicast


def _carried_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & _IPV4_MASK)
    return address.ipv4_mapped or address.sixtofour
