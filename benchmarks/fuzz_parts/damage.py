"""Damaging bytes."""

from __future__ import annotations

from hypothesis import strategies as st

from fuzz_parts.examine import Draw


def damaged(draw: Draw, content: bytes) -> bytes:
    """Cut bytes off, or change, double or empty some."""
    if not content:
        return draw(st.binary(max_size=8))
    how = draw(st.sampled_from(("cut", "cut", "flip", "flip", "flip", "zeros", "more", "empty", "other")))
    # near the beginning are the headers
    longest = draw(st.sampled_from((16, 200, len(content))))
    place = draw(st.integers(0, min(longest, len(content) - 1)))
    if how == "cut":
        return content[:place] if draw(st.booleans()) else content[: len(content) - 1 - place]
    if how == "flip":
        return content[:place] + bytes([content[place] ^ draw(st.integers(1, 255))]) + content[place + 1 :]
    if how == "zeros":
        return content[:place] + bytes(min(64, len(content) - place)) + content[place + 64 :]
    if how == "more":
        return content + draw(st.binary(min_size=1, max_size=16))
    return (
        b""
        if how == "empty"
        else draw(st.sampled_from((b"null", b"[]", b"{}", b"\x80\x04.", b"\xff\xfe", b"PK\x05\x06" + bytes(18))))
    )
