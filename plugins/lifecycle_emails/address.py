"""E-mail addresses: which ones are usable, how one is recognised by its hash, how replies lose theirs.

Knows RFC 5321, 5322, 6531 and internationalised domain names. Must not know who the people are or what they
are sent; no error repeats an address.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from email.errors import InvalidHeaderDefect
from email.headerregistry import Address
from email.message import EmailMessage
from functools import lru_cache

import idna

from lifecycle_emails.errors import InvalidAddress

ADDRESS_HASH_BYTES = 16
"""Length of an address hash, in bytes."""

_MAX_ADDRESS_OCTETS = 254  # RFC 5321 4.5.3.1.3: 256 for a path, two of which are its angle brackets
_MAX_LOCAL_OCTETS = 64  # RFC 5321 4.5.3.1.1
_MAX_DOMAIN_OCTETS = 253  # RFC 5321 4.5.3.1.2 says 255; DNS leaves 253 of them
_ASCII_ATEXT = r"a-zA-Z0-9!#$%&'*+/=?^_`{|}~\-"  # RFC 5322 3.2.3
_ATEXT = _ASCII_ATEXT + "\u0080-\U0010ffff"  # RFC 6531 3.3
_DOT_ATOM = re.compile(rf"[{_ATEXT}]+(\.[{_ATEXT}]+)*")
_PLAIN = re.compile(rf"([{_ASCII_ATEXT}]+(?:\.[{_ASCII_ATEXT}]+)*)@([a-zA-Z0-9.-]+)")
# Some old mailboxes hold `..` or end in a dot, which only quotes allow. Spaces, commas, @ and the like are
# legal in quotes too, but they are nobody's address, and every server reads them differently.
_QUOTED = re.compile(rf'"[{_ATEXT}.]+"')
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f-\xa0]")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})


def parse_recipient(text: str | None) -> str:
    """Return the one address that ``text`` is, fit for the envelope: domain in lower-case A-labels.

    ``text`` must be exactly one RFC 5321 4.1.2 Mailbox with a domain name: no display name, comment, list,
    route, address literal or space. A local part beyond ASCII is allowed (RFC 6531; the message then needs
    SMTPUTF8). Lengths are those of RFC 5321 4.5.3.1. None, which a source has for NULL, is an empty address.

    Raises InvalidAddress, which says what is wrong and never repeats the address.
    """
    if not text:
        raise InvalidAddress("the address is empty")
    if _CONTROL_OR_SPACE.search(text):
        raise InvalidAddress("the address holds a space or a control character")
    local, at, domain = unicodedata.normalize("NFC", text).rpartition("@")
    if not at or not local or not domain:
        raise InvalidAddress("the address is not of the form name@domain")
    _check_local_part(local)
    address = f"{local}@{_to_ascii_domain(domain)}"
    if len(address.encode()) > _MAX_ADDRESS_OCTETS:
        raise InvalidAddress(f"the address is longer than {_MAX_ADDRESS_OCTETS} octets")
    return address


def parse_mailbox(text: str) -> Address:
    """Return the one RFC 5322 3.4 mailbox that ``text`` is: ``Name <name@domain>`` or ``name@domain``.

    For the sender and the reply address of a campaign. They must be ASCII before the @, so that every server
    takes them. Raises InvalidAddress, which says what is wrong and never repeats the address.
    """
    if any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in text):
        raise InvalidAddress("it holds a line break or another control character")
    holder = EmailMessage()
    holder["Reply-To"] = text
    header = holder["Reply-To"]
    mailboxes = header.addresses
    if len(mailboxes) != 1 or header.groups[0].display_name is not None:
        raise InvalidAddress("it is not exactly one mailbox")
    try:
        address = parse_recipient(mailboxes[0].addr_spec)
    except InvalidAddress as invalid:
        raise InvalidAddress(f"its address is not usable: {invalid}") from None
    if any(isinstance(defect, InvalidHeaderDefect) for defect in header.defects):
        raise InvalidAddress("something stands beside the mailbox")
    if not address.isascii():
        raise InvalidAddress("its address is not ASCII before the @, which many servers refuse in a sender")
    return Address(display_name=mailboxes[0].display_name, addr_spec=address)


def address_hash(key: bytes, address: str) -> bytes:
    """Return the keyed hash by which the ledger recognises ``address`` without holding it: 16 bytes.

    Spellings of one mailbox hash alike: space around it, case, Unicode form and the form of its domain do not
    count. ``key``: 1 to 64 secret bytes. Raises InvalidAddress as `parse_recipient` does, ValueError for
    a key of another length.
    """
    if not 1 <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise ValueError("the key of address hashes must be 1 to 64 bytes long")
    normal = unicodedata.normalize("NFC", parse_recipient(address.strip()).casefold())
    return hashlib.blake2b(normal.encode(), key=key, digest_size=ADDRESS_HASH_BYTES).digest()


class AddressHasher:
    """Hashes the addresses of an audience one after another, or tells what is wrong with one.

    The hash is that of `address_hash`. Called with an address as the source has it, which is not trimmed;
    None is an empty one. Raises InvalidAddress as `parse_recipient` does.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._keyed = hashlib.blake2b(key=key, digest_size=ADDRESS_HASH_BYTES)

    def __call__(self, text: str | None) -> bytes:
        """Return the 16 bytes by which the ledger recognises the address."""
        # Nearly all addresses are plain: parsing and normalising them comes to two checks and lower case.
        plain = _PLAIN.fullmatch(text) if text and len(text) <= _MAX_ADDRESS_OCTETS else None
        if plain and plain.end(1) <= _MAX_LOCAL_OCTETS:
            hashed = self._keyed.copy()
            hashed.update(f"{plain[1].lower()}@{_to_ascii_domain(plain[2])}".encode())
            return hashed.digest()
        return address_hash(self._key, parse_recipient(text))


_QUOTED_ADDRESS = re.compile(r'<?"[^"\r\n]*"@[^\s<>,;:"]*>?')
_WORD = re.compile(r'<?[^\s<>(),;:"]+>?')
# As it stands, in a link, as xtext (RFC 3461 4), in a return path, in HTML, and the sign's two wide forms.
_AT = re.compile(r"@|%40|\+40|=40|&#64;|&commat;|\uff20|\ufe6b", re.IGNORECASE)


def scrub_addresses(text: str) -> str:
    """Return ``text`` with each e-mail address replaced by ``<address>``.

    For server replies and database messages. The whole word around an @ goes: rather too much than too
    little.
    """
    text = _QUOTED_ADDRESS.sub("<address>", text)
    return _WORD.sub(lambda word: "<address>" if _AT.search(word[0]) else word[0], text)


def _check_local_part(local: str) -> None:
    if not (_DOT_ATOM.fullmatch(local) or _QUOTED.fullmatch(local)):
        raise InvalidAddress("the address holds a character or a dot that is not allowed before the @")
    if not local.isascii() and any(unicodedata.category(char) in _INVISIBLE for char in local):
        raise InvalidAddress("the address holds an invisible or unassigned character before the @")
    if len(local.encode()) > _MAX_LOCAL_OCTETS:
        raise InvalidAddress(f"the address has more than {_MAX_LOCAL_OCTETS} octets before the @")


@lru_cache(maxsize=8192)
def _to_ascii_domain(domain: str) -> str:
    """Return ``domain`` in lower-case A-labels (RFC 5890), checked to be a name of at least two labels.

    By UTS 46, not by the standard library's codec: that one maps ß to ss, which is another domain.
    """
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise InvalidAddress("the address has a domain that is no international domain name") from None
    domain = domain.lower()
    labels = domain.split(".")
    if len(labels) < 2 or len(domain) > _MAX_DOMAIN_OCTETS or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidAddress("the address has no full domain name after the @")
    if labels[-1].isdigit():
        raise InvalidAddress("the address has a number where its top-level domain should be")
    return domain
