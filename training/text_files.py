"""Text files that people make with whatever program they have: lists and tables."""

import codecs

_BYTE_ORDER_MARKS = {  # that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def decoded(data: bytes) -> str:
    """Return the text of a file, by its byte order mark or else by what its bytes can be.

    Raises ValueError for what is no text.
    """
    encoding = "utf-8"
    if data[:1] == b"\0":
        encoding = "utf-16-be"
    elif data[1:2] == b"\0":
        encoding = "utf-16-le"
    for mark, marked_encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            encoding = marked_encoding
            break
    try:
        text = data.decode(encoding)
    except ValueError:
        # What Windows writes where nobody asks for anything else.
        text = data.decode("cp1252", errors="replace")
    if "\0" in text:
        raise ValueError("it is no text")
    return text
