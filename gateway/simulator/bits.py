"""How are the bits of an H.264 stream written?

H.264 (ITU-T H.264, 7.2 and 9.1) writes fixed-width fields and Exp-Golomb codes one after another,
then packs the result into a NAL unit in which no start code can appear by accident. Bits are kept
as text of '0' and '1': a picture is built once and cached, and text can be read in a debugger.
"""

_EMULATION_AFTER_ZEROS = 2
_EMULATION_HIGHEST = 3


class Bits:
    """A growing run of bits, most significant first; each method returns the same run."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[str] = []

    def fixed(self, value: int, *, width: int) -> "Bits":
        """Append `value` in `width` bits: u(n)."""
        self._parts.append(format(value, f"0{width}b"))
        return self

    def unsigned(self, value: int) -> "Bits":
        """Append `value` as an unsigned Exp-Golomb code: ue(v)."""
        return self.fixed(value + 1, width=2 * (value + 1).bit_length() - 1)

    def signed(self, value: int) -> "Bits":
        """Append `value` as a signed Exp-Golomb code: se(v)."""
        return self.unsigned(2 * value - 1 if value > 0 else -2 * value)

    def flag(self, value: int) -> "Bits":
        """Append one bit: u(1)."""
        return self.fixed(value, width=1)

    def raw(self, text: str) -> "Bits":
        """Append bits that are already written out."""
        self._parts.append(text)
        return self

    def align(self) -> "Bits":
        """Append zero bits up to the next whole byte."""
        return self.raw("0" * (-len(self.text()) % 8))

    def text(self) -> str:
        """Return all bits so far, as '0' and '1'."""
        self._parts = ["".join(self._parts)]
        return self._parts[0]

    def payload(self) -> bytes:
        """Return the bits closed by a stop bit and filled up to whole bytes (7.3.2.11)."""
        text = self.text() + "1"
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def nal_unit(*, importance: int, kind: int, payload: bytes) -> bytes:
    """Return one NAL unit (7.3.1): header byte, then the payload with emulation prevention."""
    unit = bytearray([importance << 5 | kind])
    zeros = 0
    for byte in payload:
        if zeros >= _EMULATION_AFTER_ZEROS and byte <= _EMULATION_HIGHEST:
            unit.append(_EMULATION_HIGHEST)
            zeros = 0
        unit.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(unit)
