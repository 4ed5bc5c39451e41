"""The markers of a JPEG, as far as they say how much work it is to decode (ITU-T T.81, annex B)."""

from __future__ import annotations

import re

MAX_SCANS = 200
"""Scans of a JPEG that is decoded; encoders write about ten."""

# after any number of fill bytes (0xFF), of which one is matched: with all of them a long run takes quadratic time; markers
# without a length, but for the end, are left out
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_END, _SCAN = 0xD9, 0xDA
FRAMES = {0xC0 + n for n in range(16)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}


def has_many_scans(data: bytes) -> bool:
    """Whether a JPEG is stored in more scans than anybody needs: each costs a pass over the whole picture.

    Nothing behind its end counts, where a phone may keep a video, and nothing within a segment. A picture whose first
    scan is all of it is read no further than to there.
    """
    at, scans, components, progressive = 2, 0, 0, False
    while scans <= MAX_SCANS and (found := _MARKER.search(data, at)):
        marker, start = found[1][0], found.end()
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
