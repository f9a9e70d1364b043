"""What does the simulator's picture look like, as H.264?

Eight vertical colour bars that move on by one bar each second, in constrained baseline profile.
One picture a second is drawn (IDR), the others say "as before" (all macroblocks skipped). In the
drawn picture only the first row holds samples: one raw macroblock (I_PCM) where a bar begins,
copied to the right by horizontal prediction; all rows below copy the row above by vertical
prediction. So a picture costs a few kilobytes whatever its size. Numbers in parentheses are
sections of ITU-T H.264.
"""

from itertools import pairwise

from gateway.simulator.bits import Bits, nal_unit

# (Y, Cb, Cr) of the usual 75 % bars, ITU-R BT.601, limited range.
BARS = (
    (180, 128, 128),
    (162, 44, 142),
    (131, 156, 44),
    (112, 72, 58),
    (84, 184, 198),
    (65, 100, 212),
    (35, 212, 114),
    (16, 128, 128),
)
PROFILE_BASELINE = 66
PROFILE_CONSTRAINED = 0xC0

_MACROBLOCK = 16
_LEVEL_4_MACROBLOCKS = 8192  # Table A-1, MaxFS of level 4.0
_SKIPPED_SLICE = 5
_INTRA_SLICE = 7
_COPY_FROM_ABOVE = 1  # mb_type I_16x16_0_0_0 (Table 7-11)
_COPY_FROM_LEFT = 2  # mb_type I_16x16_1_0_0
_RAW_SAMPLES = 25  # mb_type I_PCM
_CHROMA_FROM_LEFT = 1  # Table 7-16
_CHROMA_FROM_ABOVE = 2
_NOTHING_LEFT = "1"  # coeff_token of an empty block, no raw neighbour (Table 9-5)
_NOTHING_LEFT_BESIDE_RAW = "000011"  # the same where a neighbour is I_PCM (nC >= 8)


def level_of(*, width: int, height: int) -> int:
    """Return the level_idc that admits this picture size at 30 pictures a second."""
    across, down = _macroblocks(width=width, height=height)
    return 40 if across * down <= _LEVEL_4_MACROBLOCKS else 51


def sequence_parameters(*, width: int, height: int) -> bytes:
    """Return the SPS (7.3.2.1); sizes that are no multiple of 16 are cropped, evenly."""
    across, down = _macroblocks(width=width, height=height)
    bits = Bits().fixed(PROFILE_BASELINE, width=8).fixed(PROFILE_CONSTRAINED, width=8)
    bits.fixed(level_of(width=width, height=height), width=8)
    bits.unsigned(0).unsigned(0).unsigned(2).unsigned(1).flag(0)
    bits.unsigned(across - 1).unsigned(down - 1).flag(1).flag(1)
    crop_right = (across * _MACROBLOCK - width) // 2
    crop_bottom = (down * _MACROBLOCK - height) // 2
    if crop_right or crop_bottom:
        bits.flag(1).unsigned(0).unsigned(crop_right).unsigned(0).unsigned(crop_bottom)
    else:
        bits.flag(0)
    return nal_unit(importance=3, kind=7, payload=bits.flag(0).payload())


def picture_parameters() -> bytes:
    """Return the PPS (7.3.2.2): CAVLC, one slice group, deblocking under the slice's control."""
    bits = Bits().unsigned(0).unsigned(0).flag(0).flag(0).unsigned(0).unsigned(0).unsigned(0)
    bits.flag(0).fixed(0, width=2).signed(0).signed(0).signed(0).flag(1).flag(0).flag(0)
    return nal_unit(importance=3, kind=8, payload=bits.payload())


def drawn_picture(*, width: int, height: int, second: int) -> bytes:
    """Return the IDR picture that opens second number `second`."""
    across, down = _macroblocks(width=width, height=height)
    bits = Bits().unsigned(0).unsigned(_INTRA_SLICE).unsigned(0).fixed(0, width=4)
    bits.unsigned(second % 2).flag(0).flag(0).signed(0).unsigned(1)
    colours = [
        BARS[(column * len(BARS) // across + second) % len(BARS)] for column in range(across)
    ]
    starts = [True, *(left != right for left, right in pairwise(colours))]
    raw_on_left = False
    for colour, start in zip(colours, starts, strict=True):
        if start:
            bits.unsigned(_RAW_SAMPLES).align().raw(_raw_macroblock(colour))
        else:
            bits.unsigned(_COPY_FROM_LEFT).unsigned(_CHROMA_FROM_LEFT).signed(0)
            bits.raw(_NOTHING_LEFT_BESIDE_RAW if raw_on_left else _NOTHING_LEFT)
        raw_on_left = start
    copied = Bits().unsigned(_COPY_FROM_ABOVE).unsigned(_CHROMA_FROM_ABOVE).signed(0).text()
    for start in starts:
        bits.raw(copied + (_NOTHING_LEFT_BESIDE_RAW if start else _NOTHING_LEFT))
    bits.raw((copied + _NOTHING_LEFT) * (across * (down - 2)))
    return nal_unit(importance=3, kind=5, payload=bits.payload())


def repeated_picture(*, width: int, height: int, number: int) -> bytes:
    """Return a P picture that repeats the one before; `number` counts from the last IDR."""
    across, down = _macroblocks(width=width, height=height)
    bits = Bits().unsigned(0).unsigned(_SKIPPED_SLICE).unsigned(0).fixed(number % 16, width=4)
    bits.flag(0).flag(0).flag(0).signed(0).unsigned(1).unsigned(across * down)
    return nal_unit(importance=2, kind=1, payload=bits.payload())


def _macroblocks(*, width: int, height: int) -> tuple[int, int]:
    return -(-width // _MACROBLOCK), -(-height // _MACROBLOCK)


def _raw_macroblock(colour: tuple[int, int, int]) -> str:
    luma, blue, red = (format(part, "08b") for part in colour)
    return luma * 256 + blue * 64 + red * 64
