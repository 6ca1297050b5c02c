"""Encodings of text files: by a byte order mark, as given, or else UTF-8, and nothing is guessed.

A guess is only offered in the error: text that was decoded by a wrong guess looks like text.
"""

import codecs
import re

from pellucid.common.files import printable
from pellucid.common.wording import short
from pellucid.errors import ArgumentError, FileError
from pellucid.text.unmarked import no_text

UTF8 = "utf-8"
HEAD = 4096
"""Bytes that tell what a file is."""
_BETWEEN = re.compile(r'[\s,;|"]')
"""What separates words and fields."""
_AROUND = 2**13
"""Bytes before and after an invalid one from which its encoding is guessed."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # which begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_KINDS = (
    (b"PK\x03\x04", "a workbook or another zip archive; save the sheet as CSV, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "an old workbook or document; save it as CSV or text"),
    (b"\x1f\x8b\x08", "compressed; give it a name that ends in .gz"),
    (b"\x28\xb5\x2f\xfd", "compressed; give it a name that ends in .zst"),
    (b"BZh", "compressed; give it a name that ends in .bz2"),
    (b"\xfd7zXZ\0", "compressed; give it a name that ends in .xz"),
    (b"PAR1", "Parquet; give it a name that ends in .parquet"),
    (b"SQLite format 3\0", "a database; export the table as CSV"),
    (b"%PDF-", "a PDF; save its text as .txt"),
)
"""How files begin that are no text, and what to do about it."""


def check_encoding(name: str) -> None:
    """Refuse an encoding that Python does not know.

    Raises:
        ArgumentError: it is not the name of a text encoding.
    """
    try:
        b"text".decode(name, errors="replace")
    except (LookupError, ValueError) as error:
        raise ArgumentError(
            f"--encoding '{short(printable(name), 40)}' is unknown; windows-1252, utf-16 and "
            "shift_jis are some that are known"
        ) from error


def encoding_of(head: bytes, given: str | None, source: str) -> str:
    """The encoding of a file that begins so: a byte order mark is believed before anybody.

    Args:
        head: the first `HEAD` bytes.
        given: the encoding that was asked for, if any.
        source: the file's name, for errors.

    Raises:
        FileError: the file is no text, or UTF-16 or UTF-32 without a mark and nobody said so.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    for beginning, kind in _KINDS:
        if head.startswith(beginning):
            raise FileError(f"'{source}' is {kind}")
    if given is None and (reason := no_text(head)):
        raise FileError(f"'{source}' {reason}")
    return given or UTF8


class Decoder:
    """Decodes blocks, and knows where an invalid byte is."""

    def __init__(self, encoding: str, source: str, *, escapes: bool = False) -> None:
        """Decode from the start; errors call the file `source`.

        Args:
            encoding: of the file.
            source: its name.
            escapes: whether invalid bytes are no error, but become characters that
                `unescaped` finds.
        """
        self.encoding, self.source = encoding, source
        errors = ESCAPES if escapes else "strict"
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._end, self._line = 0, 1

    def decode(self, block: bytes) -> str:
        """The text of the next block; an empty one is the last.

        Raises:
            FileError: a byte is invalid; the message has its number, from 0, its line, from 1, and
                the way on.
        """
        self._end += len(block)
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeError as error:
            raise self._failure(error) from error
        self._line += lines_in(text)
        return text

    def _failure(self, error: UnicodeError) -> FileError:
        name = "UTF-8" if self.encoding.startswith(UTF8) else self.encoding
        if not isinstance(error, UnicodeDecodeError):  # UTF-32 and UTF-16 without their marks
            return FileError(f"'{self.source}' is not {name} text: {error}")
        # The decoded bytes end with the block, but may begin before it.
        data, start = error.object, error.start
        before = data[:start].decode(self.encoding, errors="ignore")
        reason = (
            f"'{self.source}' is not {name} text: byte {self._end - len(data) + start}, "
            f"in line {self._line + lines_in(before)}, is 0x{data[start]:02x}"
        )
        guess = (
            guessed(data[max(0, start - _AROUND) : start + _AROUND]) if name == "UTF-8" else None
        )
        if guess is None:
            return FileError(reason)
        word = word_at(data, start, guess)
        return FileError(f"{reason}; if that is “{word}”, the file is read with --encoding {guess}")


def lines_in(text: str) -> int:
    r"""How many lines end in a text: with \n, \r or \r\n."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")


ESCAPES = "pellucid.bytes"
"""How Python calls the treatment of invalid bytes that become characters."""
_ESCAPED = re.compile("[\udc00-\udcff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """An invalid byte is U+DC00 plus the byte, which no text holds; and back."""
    if isinstance(error, UnicodeDecodeError):
        bad = error.object[error.start : error.end]
        return "".join(chr(0xDC00 + byte) for byte in bad), error.end
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return bytes(ord(x) & 0xFF for x in characters if _ESCAPED.match(x)), error.end


codecs.register_error(ESCAPES, _escape)


def unescaped(text: str) -> tuple[bytes, int] | None:
    """The bytes of a text with escaped ones, and where the first of these is; None without any."""
    match = None if text.isascii() else _ESCAPED.search(text)
    if match is None:
        return None
    before = text[: match.start()].encode(errors=ESCAPES)
    return before + text[match.start() :].encode(errors=ESCAPES), len(before)


def readable(text: str) -> str:
    """A text with U+FFFD for each byte that was escaped, and each surrogate without its pair."""
    return _SURROGATES.sub("\ufffd", text)


def word_at(data: bytes, start: int, encoding: str) -> str:
    """The word around an invalid byte, as another encoding reads it."""
    text = data[max(0, start - 40) : start + 40].decode(encoding, errors="replace")
    place = len(data[max(0, start - 40) : start].decode(encoding, errors="replace"))
    before = _BETWEEN.split(text[:place])[-1]
    after = _BETWEEN.split(text[place:])[0]
    return short(printable(before + after), 40)


def guessed(sample: bytes) -> str | None:
    """The likeliest encoding of bytes that are not UTF-8, by charset-normalizer.

    It often cannot tell Windows-1252 from its sisters in few bytes; then it is taken to be that,
    the commonest (https://encoding.spec.whatwg.org takes it where nothing is said, too).
    """
    import charset_normalizer

    few = sum(byte > 127 for byte in sample) < 0.1 * len(sample)
    if few and _decodes(sample, "cp1252"):
        return "windows-1252"
    matches = list(charset_normalizer.from_bytes(sample))
    least = min((match.chaos for match in matches), default=1.0)
    likely = [match for match in matches if match.chaos == least]
    names = [name for match in likely for name in match.could_be_from_charset]
    if "cp1252" in names and _decodes(sample, "cp1252"):
        return "windows-1252"
    if not names:
        return None
    return names[0].replace("cp125", "windows-125").replace("_", "-")


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        sample.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
