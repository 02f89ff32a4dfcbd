"""Lines of a stream of bytes, whatever ends them: LF, CRLF or CR, as server-sent events allow."""

MAX_LINE_BYTES = 4_000_000
_MARK = b"\xef\xbb\xbf"
"""The byte order mark, which may begin a stream."""


class Lines:
    """Cuts a stream of bytes into lines, without their ends."""

    def __init__(self) -> None:
        self._rest: bytes = b""
        self._has_begun = False
        self._after_return = False
        self._is_plain = False
        """Whether bytes that don't end with CR need no closer look."""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete. Raises ValueError if a line has no end."""
        if not self._is_plain or data[-1:] == b"\r":
            data = self._plain(data)
        elif b"\r" in data:
            data = _with_newlines(data)
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        if self._rest and len(self._rest) > MAX_LINE_BYTES:
            raise ValueError("a line without an end")
        return lines

    def end(self) -> list[bytes]:
        """The last line, if the stream ended without a line end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []

    def _plain(self, data: bytes) -> bytes:
        """The bytes with LF in place of CRLF and CR, and without a byte order mark. CRLF and the mark may come in
        pieces."""
        if not self._has_begun:
            data, self._rest = self._rest + data, b""
            if len(data) < len(_MARK) and _MARK.startswith(data):
                self._rest = data
                return b""
            data, self._has_begun = data.removeprefix(_MARK), True
        if self._after_return and data[:1] == b"\n":
            data = data[1:]
        self._after_return = data[-1:] == b"\r"
        self._is_plain = not self._after_return
        return _with_newlines(data)


def _with_newlines(data: bytes) -> bytes:
    data = data.replace(b"\r\n", b"\n")
    return data.replace(b"\r", b"\n") if b"\r" in data else data
