"""Lines of a stream of bytes, whatever ends them: LF, CRLF or CR, as server-sent events allow."""

MAX_LINE_BYTES = 4_000_000
_MARK = b"\xef\xbb\xbf"
"""The byte order mark, which may begin a stream."""


class Lines:
    """Cuts a stream of bytes into lines, without their ends."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_return = False
        self._has_begun = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete. Raises ValueError if a line has no end."""
        if b"\r" in data or self._after_return:
            data = self._with_newlines(data)
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError("a line without an end")
        if lines and not self._has_begun:
            self._has_begun = True
            lines[0] = lines[0].removeprefix(_MARK)
        return lines

    def end(self) -> list[bytes]:
        """The last line, if the stream ended without a line end."""
        rest, self._rest = self._rest, b""
        return [rest if self._has_begun else rest.removeprefix(_MARK)] if rest else []

    def _with_newlines(self, data: bytes) -> bytes:
        """The bytes with LF in place of CRLF and CR; the two bytes of CRLF may come separately."""
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]
        self._after_return = data.endswith(b"\r") if data else False
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
