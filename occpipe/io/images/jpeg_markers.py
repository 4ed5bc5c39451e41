"""The markers of a JPEG that show how much work its decoding is (ITU-T T.81, annex B)."""

from __future__ import annotations

import re

MAX_SCANS = 200
"""A JPEG with more scans is not decoded; encoders write about ten."""

# One of any number of fill bytes (0xFF) is matched, because matching all would take quadratic time for a long run.
# Markers without a length are left out, except the end.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_END, _SCAN = 0xD9, 0xDA
FRAMES = {0xC0 + n for n in range(16)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}


def has_many_scans(data: bytes) -> bool:
    """Whether a JPEG has too many scans; each needs a pass over the whole picture.

    Bytes behind its end do not count, because phones store videos there, nor do bytes within a segment. If the first scan
    has all components, nothing behind it is read.
    """
    at, scans, components, progressive = 2, 0, 0, False
    while scans <= MAX_SCANS and (match := _MARKER.search(data, at)):
        marker, start = match[1][0], match.end()
        if marker == _END:
            return False
        segment = data[start : start + int.from_bytes(data[start : start + 2], "big")]
        if marker in FRAMES and len(segment) > 7:
            progressive, components = marker in _PROGRESSIVE, segment[7]
        elif marker == _SCAN:
            scans += 1
            if scans == 1 and not progressive and len(segment) > 2 and segment[2] >= components:
                return False
        at = start + max(2, len(segment))
    return scans > MAX_SCANS
