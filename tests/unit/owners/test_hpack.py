"""Our HPACK against the package hpack, as a reference."""

from __future__ import annotations

import hpack as reference
import pytest
from gpu_exporter.owners import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

#: Names and values in and outside of the static table.
NAMES = st.sampled_from(
    (":status", "content-type", "grpc-status", "grpc-message", "date", "set-cookie")
) | st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)
VALUES = st.sampled_from(("200", "404", "0", "application/grpc", "")) | st.text(
    st.characters(min_codepoint=0, max_codepoint=255), max_size=200
)
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=12)

Fields = list[tuple[str, str, bool]]


def decode_reference(block: bytes) -> list[tuple[str, str]]:
    """Decoded by hpack, for a peer that allows no dynamic table, as ours does. Raises HPACKError."""
    decoder = reference.Decoder()
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in decoder.decode(block, raw=True)]


def encode_reference(encoder: reference.Encoder, fields: Fields, huffman: bool) -> bytes:
    """Encoded by hpack. The third element of a field forbids indexing it."""
    return encoder.encode(
        [
            (reference.NeverIndexedHeaderTuple if sensitive else reference.HeaderTuple)(
                name.encode("latin-1"), value.encode("latin-1")
            )
            for name, value, sensitive in fields
        ],
        huffman=huffman,
    )


def decode_or_reason(block: bytes) -> list[tuple[str, str]] | str:
    """The fields, or which of our two limits the block exceeds. Raises ValueError for any other reason."""
    try:
        return hpack.decode(block)
    except ValueError as error:
        for reason in ("not in the static table", "too large"):
            if str(error).endswith(reason):
                return reason
        raise


def pairs(fields: Fields) -> list[tuple[str, str]]:
    return [(name, value) for name, value, _ in fields]


@given(blocks=st.lists(FIELDS, min_size=1, max_size=3), huffman=st.booleans())
def test_blocks_of_a_peer_that_honours_our_table_size_decode_alike(blocks: list[Fields], huffman: bool) -> None:
    encoder = reference.Encoder()
    encoder.header_table_size = 0
    for fields in blocks:
        block = encode_reference(encoder, fields, huffman)
        assert hpack.decode(block) == decode_reference(block) == pairs(fields)


@given(blocks=st.lists(FIELDS, min_size=1, max_size=3), huffman=st.booleans())
def test_blocks_that_use_a_dynamic_table_decode_alike_or_are_refused(blocks: list[Fields], huffman: bool) -> None:
    encoder, decoder = reference.Encoder(), reference.Decoder()
    for fields in blocks:
        block = encode_reference(encoder, fields, huffman)
        assert len(list(decoder.decode(block, raw=True))) == len(fields)
        assert decode_or_reason(block) in (pairs(fields), "not in the static table")


@given(st.lists(st.tuples(NAMES, st.text(st.characters(max_codepoint=127), max_size=126))))
def test_our_blocks_are_decoded_by_the_reference(fields: list[tuple[str, str]]) -> None:
    assert decode_reference(hpack.encode(fields)) == fields


def check_alike(block: bytes) -> None:
    """Refused where hpack refuses it, else decoded alike. We refuse integers of more than 28 bits, hpack does not."""
    try:
        expected = decode_reference(block)
    except reference.HPACKError:
        with pytest.raises(ValueError, match="header"):
            hpack.decode(block)
        return
    assert decode_or_reason(block) in (expected, "too large")


@settings(max_examples=500)
@given(st.binary(max_size=60))
def test_random_blocks(block: bytes) -> None:
    check_alike(block)


@settings(max_examples=500)
@given(
    fields=FIELDS.filter(bool),
    huffman=st.booleans(),
    place=st.integers(0, 2**16),
    byte=st.none() | st.integers(0, 255),
)
def test_damaged_blocks(fields: Fields, huffman: bool, place: int, byte: int | None) -> None:
    """One byte replaced, or the block truncated there."""
    encoder = reference.Encoder()
    encoder.header_table_size = 0
    block = encode_reference(encoder, fields, huffman)
    place %= len(block)
    check_alike(block[:place] + (b"" if byte is None else bytes([byte]) + block[place + 1 :]))


def test_huffman() -> None:
    """Strings of RFC 7541, appendix C.4 and C.6, and some bytes with codes of more than 20 bits."""
    for text, code in {
        "www.example.com": "f1e3c2e5f23a6ba0ab90f4ff",
        "no-cache": "a8eb10649cbf",
        "custom-value": "25a849e95bb8e8b4bf",
        "Mon, 21 Oct 2013 20:13:21 GMT": "d07abe941054d444a8200595040b8166e082a62d1bff",
        'x"\\ ~\xff\0': "f3fcffff053ffbfffff77fe3",
    }.items():
        data = bytes.fromhex(code)
        assert hpack.decode(b"\0\1a" + bytes([0x80 | len(data)]) + data) == [("a", text)]
    for bad in ("ff", "ffffffff", "f1e3c2e5f23a6ba0ab90f4", "a8eb10649cbfff"):
        data = bytes.fromhex(bad)
        with pytest.raises(ValueError, match="Huffman"):
            hpack.decode(b"\0\1a" + bytes([0x80 | len(data)]) + data)
