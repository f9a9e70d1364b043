"""Which trace does a text name? W3C Trace Context: https://www.w3.org/TR/trace-context-2/. Pure.

    00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
    version, trace id, span id, flags: lower-case hexadecimal digits

A text that is wrong anywhere names no trace: whoever gets it begins one of his own (section 3.2.2).
Of a version that is not known yet, what stands where ours has it is read, and the rest left alone
(section 3.2.4).
"""

import re
from typing import Final

HEADER: Final = "traceparent"
_FORM: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})"
    r"-(?!0{32})(?P<trace_id>[0-9a-f]{32})"
    r"-(?!0{16})(?P<span_id>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)
_FIRST_VERSION: Final = "00"
_TRACE_ID: Final = slice(3, 35)
# Sampled, and that the trace id is random: unknown flags must not be passed on.
_KNOWN_FLAGS: Final = 0b11


def read_traceparent(text: str) -> str | None:
    """Return what a text names, in the form of version 00; None where it names no trace."""
    found = _FORM.fullmatch(text)
    if found is None or (found["version"] == _FIRST_VERSION and found["rest"]):
        return None
    return write_traceparent(found["trace_id"], found["span_id"], flags=int(found["flags"], 16))


def write_traceparent(trace_id: str, span_id: str, *, flags: int) -> str:
    """Return the text that names a span."""
    return f"{_FIRST_VERSION}-{trace_id}-{span_id}-{flags & _KNOWN_FLAGS:02x}"


def trace_id_of(traceparent: str) -> str:
    """Return the trace id in a text that read_traceparent returned."""
    return traceparent[_TRACE_ID]
