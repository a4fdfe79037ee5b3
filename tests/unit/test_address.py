import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifecycle_emails.address import (
    ADDRESS_HASH_BYTES,
    AddressHasher,
    address_hash,
    parse_mailbox,
    parse_recipient,
    scrub_addresses,
)
from lifecycle_emails.errors import InvalidAddress

LOCAL_64 = "l" * 64
DOMAIN_189 = ".".join(["d" * 63, "d" * 63, "d" * 57, "com"])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ann@example.com", "ann@example.com"),
        ("Ann.Lee+news@Example.COM", "Ann.Lee+news@example.com"),
        ("o'neil!#$%&*/=?^_`{|}~-@example.org", "o'neil!#$%&*/=?^_`{|}~-@example.org"),
        ('"a..b."@example.com', '"a..b."@example.com'),
        ("ann@b\u00fccher.example", "ann@xn--bcher-kva.example"),
        ("ann@B\u00dcCHER.example", "ann@xn--bcher-kva.example"),
        ("ann@stra\u00dfe.example", "ann@xn--strae-oqa.example"),
        ("ann@\u4f8b\u3048\u3002example", "ann@xn--r8jz45g.example"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("\u0430\u043d\u043d\u0430@example.com", "\u0430\u043d\u043d\u0430@example.com"),
        ("zoe\u0308@example.com", "zo\u00eb@example.com"),
        (f"{LOCAL_64}@{DOMAIN_189}", f"{LOCAL_64}@{DOMAIN_189}"),
    ],
)
def test_recipient_is_one_address(text: str, address: str) -> None:
    assert parse_recipient(text) == address
    assert parse_recipient(address) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "ann@@example.com",
        "ann@bob@example.com",
        "Ann <ann@example.com>",
        "<ann@example.com>",
        "ann@example.com,bob@example.com",
        "ann@example.com;bob@example.com",
        "ann,bob@example.com",
        "ann@example.com (Ann)",
        "@relay.example:ann@example.com",
        "mailto:ann@example.com",
        " ann@example.com",
        "ann@example.com ",
        "ann @example.com",
        "ann@example.com\r\nRCPT TO:<bob@example.com>",
        "ann@example.com\n",
        "ann\x00@example.com",
        "ann\x7f@example.com",
        "ann\u0085@example.com",
        "ann\u2028@example.com",
        "ann\u200b@example.com",
        "ann\u202e@example.com",
        "ann\u00a0@example.com",
        "ann\ud800@example.com",
        ".ann@example.com",
        "ann.@example.com",
        "a..b@example.com",
        '"ann lee"@example.com',
        '"ann@x"@example.com',
        '"a\\"b"@example.com',
        '""@example.com',
        "ann@localhost",
        "ann@example.com.",
        "ann@.example.com",
        "ann@exa mple.com",
        "ann@-example.com",
        "ann@example-.com",
        "ann@exam_ple.com",
        "ann@192.0.2.1",
        "ann@[192.0.2.1]",
        "ann@[IPv6:2001:db8::1]",
        "ann@b\u00fccher..example",
        "ann@\u2603\u0338.example",
        f"{LOCAL_64}l@example.com",
        "\u0430" * 33 + "@example.com",
        f"{LOCAL_64}@{DOMAIN_189.replace('.com', 'd.com')}",
        f"ann@{'d' * 64}.example",
    ],
)
def test_recipient_that_is_not_one_usable_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidAddress) as error:
        parse_recipient(text)
    assert "ann" not in str(error.value).replace("cannot", "")
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "the address is empty"),
        ("", "the address is empty"),
        ("ann@example.com\n", "the address holds a space or a control character"),
        ("Ann <ann@example.com>", "the address holds a space or a control character"),
        ("ann", "the address is not of the form name@domain"),
        ("ann,bob@example.com", "the address holds a character or a dot that is not allowed before the @"),
        ("ann@localhost", "the address has no full domain name after the @"),
        (f"{LOCAL_64}@{DOMAIN_189.replace('.com', 'd.com')}", "the address is longer than 254 octets"),
    ],
)
def test_recipient_that_is_refused_says_why(text: str | None, says: str) -> None:
    with pytest.raises(InvalidAddress) as error:
        parse_recipient(text)
    assert str(error.value) == says


@given(st.text(max_size=80))
@example("a@b.c\n")
def test_recipient_of_any_text_is_safe_in_an_envelope(text: str) -> None:
    try:
        address = parse_recipient(text)
    except InvalidAddress:
        return
    local, _, domain = address.rpartition("@")
    assert domain.isascii()
    assert len(address.encode()) <= 254
    assert not set(address) & set("<>(),;:\\[] \r\n\t\x00")
    assert "@" not in local
    assert address.isprintable()


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        ("hello@example.com", "hello@example.com"),
        ("The team <hello@example.com>", "The team <hello@example.com>"),
        ("Zo\u00eb & Co <Hello@Example.com>", "Zo\u00eb & Co <Hello@example.com>"),
        ("J. Smith <j@example.com>", '"J. Smith" <j@example.com>'),
        ('"Lee, Ann" <ann@example.com>', '"Lee, Ann" <ann@example.com>'),
        ("B\u00fccher <b@b\u00fccher.example>", "B\u00fccher <b@xn--bcher-kva.example>"),
    ],
)
def test_mailbox_is_name_and_address(text: str, mailbox: str) -> None:
    assert str(parse_mailbox(text)) == mailbox


KEY = b"a key of the tests"


@pytest.mark.parametrize(
    "other",
    [
        " Ann.Lee@example.com\n",
        "ANN.LEE@EXAMPLE.COM",
        "ann.lee@example.com",
    ],
)
def test_address_hash_takes_spellings_of_one_mailbox_for_one(other: str) -> None:
    assert address_hash(KEY, other) == address_hash(KEY, "Ann.Lee@Example.com")


def test_address_hash_takes_forms_of_one_international_address_for_one() -> None:
    spellings = (
        "Zo\u00eb@b\u00fccher.example",
        "zoe\u0308@BU\u0308CHER.example",
        "zo\u00eb@xn--bcher-kva.example",
    )
    assert len({address_hash(KEY, spelling) for spelling in spellings}) == 1


def test_address_hash_differs_by_address_and_by_key() -> None:
    hashes = {
        address_hash(KEY, "ann@example.com"),
        address_hash(KEY, "bob@example.com"),
        address_hash(KEY, "ann@example.org"),
        address_hash(b"another key", "ann@example.com"),
    }
    assert len(hashes) == 4
    assert {len(found) for found in hashes} == {ADDRESS_HASH_BYTES}


def test_address_hash_never_changes() -> None:
    # Suppressions are kept by it: another value for a known address would mail the suppressed.
    assert address_hash(b"key", "ann@example.com").hex() == "6f081fb4869b1cb55d29641e6aa8ce0c"


@pytest.mark.parametrize("key", [b"", b"k" * 65])
def test_address_hash_needs_a_key(key: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        address_hash(key, "ann@example.com")


@given(st.emails())
def test_address_hash_of_the_parsed_address_is_that_of_the_written_one(text: str) -> None:
    try:
        address = parse_recipient(text)
    except InvalidAddress:
        return
    assert address_hash(KEY, address) == address_hash(KEY, text)


def hash_or_mistake(text: str | None) -> bytes | str:
    try:
        return address_hash(KEY, parse_recipient(text))
    except InvalidAddress as mistake:
        return str(mistake)


@given(
    st.emails()
    | st.text(max_size=80)
    | st.from_regex(r"\A[a-zA-Z0-9.+@\x22 \xfc-]{0,70}@[a-zA-Z0-9. \xdf-]{0,70}\Z")
    | st.from_regex(r"\A[a-z]{60,66}@([a-z]{60,66}\.){1,4}com\Z")
    | st.none()
)
@example("Ann.Lee@Example.com")
@example(f"{LOCAL_64}@example.com")
@example(f"l{LOCAL_64}@example.com")
@example(f"{LOCAL_64}@{DOMAIN_189}")
@example(f"{LOCAL_64}@d{DOMAIN_189}")
@example("ann@localhost")
@example("ann@example.123")
@example("ann@-example.com")
@example("ann@exam ple.com")
@example("ann@example.com\n")
@example(" ann@example.com")
@example("ann@lee@example.com")
@example(None)
def test_hasher_says_of_any_text_what_parsing_and_hashing_say(text: str | None) -> None:
    try:
        said: bytes | str = AddressHasher(KEY)(text)
    except InvalidAddress as mistake:
        said = str(mistake)
    assert said == hash_or_mistake(text)


@pytest.mark.parametrize(
    ("reply", "scrubbed"),
    [
        (
            "5.1.1 <ann@example.com>: Recipient address rejected",
            "5.1.1 <address>: Recipient address rejected",
        ),
        ("User ann@example.com unknown; try bob@example.org.", "User <address> unknown; try <address>"),
        ("5.1.1 mailbox of \u0430\u043d\u043d\u0430@example.com", "5.1.1 mailbox of <address>"),
        ('550 "ann lee"@example.com no', "550 <address> no"),
        ('550 <"ann lee"@example.com> no', "550 <address> no"),
        ("see https://example.com/?to=ann%40example.com&n=1 for why", "see https:<address> for why"),
        ("ORCPT=rfc822;ann+40example.com", "ORCPT=rfc822;<address>"),
        ("bounce to b+ann=40example.com", "bounce to <address>"),
        ("ann@[192.0.2.1] refused", "<address> refused"),
        ("(ann@example.com)", "(<address>)"),
        ("2.0.0 Ok: queued as 4X7c1234", "2.0.0 Ok: queued as 4X7c1234"),
        ("", ""),
    ],
)
def test_scrubbing_takes_addresses_out_of_replies(reply: str, scrubbed: str) -> None:
    assert scrub_addresses(reply) == scrubbed


@given(st.text(max_size=60), st.emails(), st.text(max_size=60))
def test_scrubbing_leaves_no_address_in_any_text(before: str, address: str, after: str) -> None:
    scrubbed = scrub_addresses(f"{before} <{address}> {after}")
    assert "@" not in scrubbed
    assert scrub_addresses(scrubbed) == scrubbed
