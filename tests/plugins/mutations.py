"""Files with anything changed in them, drawn by hypothesis, and a bound on what a reader may take for one of them."""

import signal

import pytest
from hypothesis import settings
from hypothesis import strategies as st

# A quarter of what the profile says, since there are many files; `make fuzz` has a longer one.
MANY = settings(deadline=None, max_examples=settings.default.max_examples // 4)

# Counts, offsets and signs at their limits, and what ends or quotes text.
_TELLING = [b"\0", b"\0\0\0\0", b"\x7f", b"\x80", b"\xff", b"\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8]
_TELLING += [b'"', b",", b"\n", b"\r", b"..", b"/", b"NaN", b"1e999", b"\xc3"]


@st.composite
def mutated(draw, *contents: bytes):
    """One of these files with up to four changes."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        # What is said about a file stands at its beginning or at its end.
        place = draw(st.integers(0, len(content)) | st.integers(0, min(len(content), 300)))
        place = len(content) - place if draw(st.booleans()) else place
        match draw(st.sampled_from(["change", "overwrite", "insert", "cut", "remove"])):
            case "change" if place < len(content):
                content[place] ^= draw(st.integers(1, 255))
            case "overwrite":
                telling = draw(st.sampled_from(_TELLING))
                content[place : place + len(telling)] = telling
            case "insert":
                content[place:place] = draw(st.binary(max_size=20))
            case "cut":
                del content[place:]
            case "remove":
                del content[place : place + draw(st.integers(1, 30))]
    return bytes(content)


def read_or_refused(read, *refusals, seconds: float = 30):
    """What `read` gives, and None; or None, and the line with which it refuses.

    It fails where `read` takes so many seconds of this process's own time, however busy the machine is.
    """
    before = signal.signal(signal.SIGVTALRM, lambda *_: pytest.fail(f"no end after {seconds} s of computing"))
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    message = None
    try:
        return read(), None
    except refusals as error:
        message = str(error)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert message.isprintable()
    return None, message
