"""Header fields of HTTP/2 (RFC 7541): enough to ask one question and to read the fields of its answer.

The table that both sides may build up is not supported: we never add to it, and ask the other side for one of size 0.
"""

from __future__ import annotations

from collections.abc import Iterable

# Appendix A, numbered from 1. Of those with a value only :status matters in an answer.
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

# Appendix B: the length in bits of each byte's code. The code is canonical (in the order of length, then of the byte,
# each is the one before plus one), so that the lengths are all there is to know.
_CODE_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506"
    "06060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606"
    "060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617"
    "1617171816151416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a1819"
    "13151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
)
_MAX_PADDING_BITS = 7


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """A block of these fields, each written out in full."""
    return b"".join(b"\x00" + _encode_string(name) + _encode_string(value) for name, value in fields)


def decode(block: bytes) -> list[tuple[str, str]]:
    """The fields of a block. Raises ValueError if it cannot be understood."""
    fields: list[tuple[str, str]] = []
    position = 0
    while position < len(block):
        first = block[position]
        if first & 0x80:  # name and value by number
            number, position = _decode_integer(block, position, 7)
            if number not in _STATIC_VALUES and not 1 <= number <= len(_STATIC_NAMES):
                raise ValueError(f"header field {number} is not in the table")
            fields.append((_STATIC_NAMES[number - 1], _STATIC_VALUES.get(number, "")))
        elif first & 0xE0 == 0x20:  # a new size of the table that is not used
            _, position = _decode_integer(block, position, 5)
        else:
            number, position = _decode_integer(block, position, 6 if first & 0x40 else 4)
            if number > len(_STATIC_NAMES):
                raise ValueError(f"header field {number} is not in the table")
            if number:
                name = _STATIC_NAMES[number - 1]
            else:
                name, position = _decode_string(block, position)
            value, position = _decode_string(block, position)
            fields.append((name, value))
    return fields


def _encode_string(text: str) -> bytes:
    data = text.encode("ascii")
    if len(data) >= 0x7F:
        raise ValueError(f"too long for this encoder: {text[:40]!r}")
    return bytes([len(data)]) + data


def _decode_integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    """The number that begins in the low `bits` of a byte, and where it ends (section 5.1)."""
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
    raise ValueError("a number in the header is too large")


def _byte_at(block: bytes, position: int) -> int:
    if position >= len(block):
        raise ValueError("the header is cut short")
    return block[position]


def _decode_string(block: bytes, position: int) -> tuple[str, int]:
    huffman = _byte_at(block, position) & 0x80
    length, position = _decode_integer(block, position, 7)
    data = block[position : position + length]
    if len(data) < length:
        raise ValueError("the header is cut short")
    return (_decode_huffman(data) if huffman else data).decode("latin-1"), position + length


def _decode_huffman(data: bytes) -> bytes:
    """Bit by bit with the first code of each length: slow, for the hundred bytes that an answer has."""
    decoded = bytearray()
    symbols = sorted(range(256), key=lambda symbol: (_CODE_LENGTHS[symbol], symbol))
    counts = [_CODE_LENGTHS.count(length) for length in range(31)]
    code = length = first = index = 0
    for bit in (byte >> shift & 1 for byte in data for shift in range(7, -1, -1)):
        code = code << 1 | bit
        length += 1
        first <<= 1
        if length > 30:
            raise ValueError("a Huffman code in the header is not known")
        if code - first < counts[length]:
            decoded.append(symbols[index + code - first])
            code = length = first = index = 0
        else:
            index += counts[length]
            first += counts[length]
    if length > _MAX_PADDING_BITS or code != (1 << length) - 1:
        raise ValueError("a Huffman code in the header is cut short")
    return bytes(decoded)
