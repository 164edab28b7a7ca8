"""The one place that cleans and bounds what strangers state: texts, numbers, addresses, JSON.

Lists, sources, pages and headers hold whatever somebody wrote into them: half an emoji, a width of
10^30, an address that no parser takes. What leaves these functions can be encoded, stored in every
database that the product supports and written as one line. Only `parsed_json` raises.
"""

import hashlib
import json
import re
import unicodedata
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from yarl import URL

MAX_TEXT_CHARACTERS = 4000
MAX_ADDRESS_CHARACTERS = 8192  # more than hosts and browsers agree on
MAX_NUMBER = 2**53 - 1  # the largest that every JSON reader knows exactly (RFC 8259, section 6)
MAX_PIXELS_OF_A_SIDE = 10_000_000
MAX_WAIT_SECONDS = 86_400.0
MAX_DIGITS = 30
MAX_PARAMETERS = 1000
DIGEST_CHARACTERS = 16
# Besides control characters: the marks that turn the direction of all that follows, line and
# paragraph separators, what is no character at all, and the byte order mark inside a text.
UNWANTED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff\ufffe\uffff\ufdd0-\ufdef]"
)
# Neither is part of any URL, but both are pasted into lists; browsers drop them as well.
# https://url.spec.whatwg.org/#concept-basic-url-parser
LINE_ENDS = re.compile("[\t\r\n]")


def clean_text(value: object, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Return a text as one line of at most `limit` characters in Unicode's composed form (NFC).

    Halves of surrogate pairs become U+FFFD, control characters become spaces. What is not a text
    becomes an empty one.
    """
    if not isinstance(value, str):
        return ""
    text = value[: 4 * limit]  # what follows takes time for each character
    if not (text.isascii() and text.isprintable()):
        text = UNWANTED.sub(" ", _without_surrogates(text))
        text = unicodedata.normalize("NFC", text)
    text = text.strip()
    return text if len(text) <= limit else text[:limit].rstrip()


def _without_surrogates(text: str) -> str:
    """Join the surrogates that are pairs and replace the others."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def whole_number(value: object, most: int = MAX_NUMBER) -> int | None:
    """Return a whole number from 1 to `most`, None for anything else."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 < value <= most else None


def pixels(value: object) -> int | None:
    """Return the length of a side in pixels, None for what can be none."""
    return whole_number(value, MAX_PIXELS_OF_A_SIDE)


def number_in(text: object, most: int = MAX_NUMBER) -> int | None:
    """Return the number from 1 to `most` that a text of digits writes, None for anything else."""
    if not isinstance(text, str):
        return None
    digits = text.strip()
    if not digits.isascii() or not digits.isdecimal() or len(digits) > MAX_DIGITS:
        return None
    return whole_number(int(digits), most)


def wait_seconds(value: float) -> float:
    """Return how long to wait when somebody asks for so many seconds: from 0 to a day."""
    if not value > 0:  # also what is not a number
        return 0.0
    return min(value, MAX_WAIT_SECONDS)


def clean_address(value: object) -> str:
    """Return an address as it was written, without what no address can hold.

    It need not be one that can be fetched: `address_fault` says that. One that is too long keeps
    its beginning and gets a digest, so that it differs from others and stays refused.
    """
    if not isinstance(value, str):
        return ""
    text = value.strip()
    if not (text.isascii() and text.isprintable()):
        text = LINE_ENDS.sub("", text)
        text = UNWANTED.sub("\ufffd", _without_surrogates(text)).strip()
    if len(text) <= MAX_ADDRESS_CHARACTERS + 1 + DIGEST_CHARACTERS:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]
    return f"{text[:MAX_ADDRESS_CHARACTERS]}…{digest}"


def address_fault(text: str) -> str:
    """Return why a text cannot be asked for over HTTP, empty when it can.

    This only reads the text: what may be asked for is decided by `net.http.AddressRule`.
    """
    if len(text) > MAX_ADDRESS_CHARACTERS:
        return f"longer than {MAX_ADDRESS_CHARACTERS} characters"
    if "\ufffd" in text or UNWANTED.search(text):
        return "characters that no address has"
    try:
        url = URL(text)
        host = url.host  # some names are refused only when they are read
        url.port  # noqa: B018 - and some ports
    except ValueError:
        return "not a web address"
    if url.scheme not in ("http", "https") or not host:
        return "not a web address"
    return ""


def web_address(value: object) -> str:
    """Return an HTTP address with its scheme completed, empty for anything else."""
    text = clean_address(value)
    if text.startswith("//"):
        text = f"https:{text}"
    is_web = text.lower().startswith(("http://", "https://"))
    return text if is_web else ""


def page_address(value: object) -> str:
    """Return an address to show and to credit, empty when it is none that could be opened."""
    text = web_address(value)
    if not text or address_fault(text):
        return ""
    return text


def query_parameters(link: object) -> dict[str, str]:
    """Return the parameters of a link, each with its first value; none of what is no link."""
    try:
        pairs = parse_qsl(urlsplit(clean_address(link)).query, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        return {}
    return dict(reversed(pairs))


def parsed_json(body: bytes | bytearray) -> Any:
    """Return what a JSON answer holds; a number that is too long to be meant is None.

    Bytes that are no text, control characters in texts and a byte order mark do not matter. Raises
    ValueError for what is not JSON.
    """
    text = body.decode(json.detect_encoding(body), errors="replace")
    try:
        return json.loads(text, strict=False, parse_int=_short_number, parse_constant=_nothing)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _short_number(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_DIGITS else None


def _nothing(_name: str) -> None:
    """Stand for NaN and Infinity, which JSON does not have."""
