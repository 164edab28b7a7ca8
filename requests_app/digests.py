"""Who asked before, without keeping who it was: salted digests of mailboxes and networks.

The salt is the secret key, so that nobody who sees the digests can try addresses against them.
"""

import hashlib
import hmac
import unicodedata
from ipaddress import ip_address, ip_network

from django.conf import settings
from django.utils.encoding import punycode

IPV4_BITS = 24  # of an address that count as its network
IPV6_BITS = 64
SAME_DOMAINS = {"googlemail.com": "gmail.com"}


def mailbox_digest(email: str) -> str:
    """Return the digest of the mailbox that an address reaches, "" for no address."""
    if not email:
        return ""
    return _digest("mailbox", mailbox_of(email))


def mailbox_of(email: str) -> str:
    """Return what spellings of one mailbox have in common: without dots, +tag and capitals.

    Some servers take them for different mailboxes; then two people share what one is allowed.
    """
    local, _, domain = unicodedata.normalize("NFC", email).rpartition("@")
    local = local.partition("+")[0].replace(".", "").casefold()
    domain = domain_key(domain)
    return f"{local}@{SAME_DOMAINS.get(domain, domain)}"


def domain_key(domain: str) -> str:
    """Return the one spelling of a domain, as mail servers compare it."""
    domain = domain.casefold().rstrip(".")
    try:
        return punycode(domain).lower()
    except UnicodeError:
        return domain


def same_address(one: str, other: str) -> bool:
    """Return whether mail to both reaches the same person by every server's rules but capitals.

    Compared here and never by a database, whose collations take "ä" for "a".
    """
    local, _, domain = one.rpartition("@")
    other_local, _, other_domain = other.rpartition("@")
    same_domain = domain_key(domain) == domain_key(other_domain)
    # Only ASCII has capitals here: "ı" or "ſ" would become another letter.
    return same_domain and _ascii_lower(local) == _ascii_lower(other_local)


def _ascii_lower(text: str) -> str:
    return text.lower() if text.isascii() else text


def network_digest(address: str) -> str:
    """Return the digest of the network that an IP address is of."""
    return _digest("network", network_of(address))


def network_of(address: str) -> str:
    """Return the network of an IP address, as one household or office has it: /24 or /64.

    Addresses that nobody knows are one network.
    """
    try:
        known = ip_address(address)
    except ValueError:
        return "unknown"
    bits = IPV4_BITS if known.version == 4 else IPV6_BITS
    return str(ip_network(f"{known}/{bits}", strict=False))


def _digest(what: str, text: str) -> str:
    message = f"{what}:{text}".encode()
    return hmac.new(settings.SECRET_KEY.encode(), message, hashlib.sha256).hexdigest()
