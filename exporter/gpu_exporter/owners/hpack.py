"""HPACK, the header compression of HTTP/2 (RFC 7541), without the dynamic table.

We never add to that table and set its size to 0 for our peer (SETTINGS_HEADER_TABLE_SIZE). The package hpack takes
3.2 MiB of memory on every node; it is a development dependency that the tests compare this module with.
"""

from __future__ import annotations

from collections.abc import Iterable

# Appendix A, numbered from 1.
_STATIC_NAMES = (
    ":authority", ":method", ":method", ":path", ":path", ":scheme", ":scheme", ":status", ":status", ":status",
    ":status", ":status", ":status", ":status", "accept-charset", "accept-encoding", "accept-language",
    "accept-ranges", "accept", "access-control-allow-origin", "age", "allow", "authorization", "cache-control",
    "content-disposition", "content-encoding", "content-language", "content-length", "content-location",
    "content-range", "content-type", "cookie", "date", "etag", "expect", "expires", "from", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "link", "location",
    "max-forwards", "proxy-authenticate", "proxy-authorization", "range", "referer", "refresh", "retry-after",
    "server", "set-cookie", "strict-transport-security", "transfer-encoding", "user-agent", "vary", "via",
    "www-authenticate",
)  # fmt: skip
_STATIC_VALUES = {
    2: "GET", 3: "POST", 4: "/", 5: "/index.html", 6: "http", 7: "https", 8: "200", 9: "204", 10: "206", 11: "304",
    12: "400", 13: "404", 14: "500", 16: "gzip, deflate",
}  # fmt: skip

# Appendix B: the code length of each byte, in bits. The code is canonical (ordered by length, then by byte, each code
# is the previous one plus one), so that the lengths define it.
_CODE_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506"
    "06060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606"
    "060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617"
    "1617171816151416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a1819"
    "13151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
)
_MAX_PADDING_BITS = 7
#: Longer strings would need an integer of several bytes for their length.
_MAX_LITERAL_BYTES = 0x7E


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Encode fields as literals, without indexing or Huffman code. Raises ValueError if not ASCII, or too long."""
    return b"".join(b"\x00" + _encode_string(name) + _encode_string(value) for name, value in fields)


def decode(block: bytes) -> list[tuple[str, str]]:
    """Decode a header block. Raises ValueError if it is malformed or refers to the dynamic table."""
    fields: list[tuple[str, str]] = []
    position = 0
    while position < len(block):
        first = block[position]
        if first & 0x80:  # indexed field
            number, position = _decode_integer(block, position, 7)
            if number not in _STATIC_VALUES and not 1 <= number <= len(_STATIC_NAMES):
                raise ValueError(f"header field {number} is not in the static table")
            fields.append((_STATIC_NAMES[number - 1], _STATIC_VALUES.get(number, "")))
        elif first & 0xE0 == 0x20:  # dynamic table size update, section 6.3
            size, position = _decode_integer(block, position, 5)
            if size or fields:
                raise ValueError("invalid dynamic table size update in the header")
        else:
            number, position = _decode_integer(block, position, 6 if first & 0x40 else 4)
            if number > len(_STATIC_NAMES):
                raise ValueError(f"header field {number} is not in the static table")
            if number:
                name = _STATIC_NAMES[number - 1]
            else:
                name, position = _decode_string(block, position)
            value, position = _decode_string(block, position)
            fields.append((name, value))
    return fields


def _encode_string(text: str) -> bytes:
    data = text.encode("ascii")
    if len(data) > _MAX_LITERAL_BYTES:
        raise ValueError(f"header field exceeds {_MAX_LITERAL_BYTES} bytes: {text[:40]!r}")
    return bytes([len(data)]) + data


def _decode_integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    """An integer with a prefix of `bits` (section 5.1), and the position after it."""
    limit = (1 << bits) - 1
    number = _byte_at(block, position) & limit
    position += 1
    if number < limit:
        return number, position
    for shift in range(0, 28, 7):
        byte = _byte_at(block, position)
        position += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("integer in the header is too large")


def _byte_at(block: bytes, position: int) -> int:
    if position >= len(block):
        raise ValueError("header block is truncated")
    return block[position]


def _decode_string(block: bytes, position: int) -> tuple[str, int]:
    huffman = _byte_at(block, position) & 0x80
    length, position = _decode_integer(block, position, 7)
    data = block[position : position + length]
    if len(data) < length:
        raise ValueError("header block is truncated")
    return (_decode_huffman(data) if huffman else data).decode("latin-1"), position + length


def _decode_huffman(data: bytes) -> bytes:
    """Decode bit by bit, with the first code of each length: slow, but a response has only a hundred bytes."""
    decoded = bytearray()
    symbols = sorted(range(256), key=lambda symbol: (_CODE_LENGTHS[symbol], symbol))
    counts = [_CODE_LENGTHS.count(length) for length in range(31)]
    code = length = first = index = 0
    for bit in (byte >> shift & 1 for byte in data for shift in range(7, -1, -1)):
        code = code << 1 | bit
        length += 1
        first <<= 1
        if length > 30:
            raise ValueError("invalid Huffman code in the header")
        if code - first < counts[length]:
            decoded.append(symbols[index + code - first])
            code = length = first = index = 0
        else:
            index += counts[length]
            first += counts[length]
    if length > _MAX_PADDING_BITS or code != (1 << length) - 1:
        raise ValueError("invalid Huffman padding in the header")
    return bytes(decoded)
