"""The reasons for which an image is rejected; they are part of the public contract."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a candidate was not kept; each names the module that usually decides it."""

    UNREACHABLE = "unreachable"
    """No connection, or no whole answer in time; `net/http.py`."""
    REFUSED_ADDRESS = "refused_address"
    """Not a public web address on port 80 or 443; `AddressRule` in `net/http.py`."""
    HTTP_ERROR = "http_error"
    """The host answered, but not with the file; the detail is its status; `net/http.py`."""
    TOO_LARGE = "too_large"
    """Too many bytes (`net/http.py`) or pixels (`MAX_PIXELS` in `screening/screen.py`)."""
    NOT_A_PICTURE = "not_a_picture"
    """No image format that is read, or damaged; `screening/screen.py`."""
    TOO_SMALL = "too_small"
    """The shorter side is below the setting `PICAISSO_MIN_SIDE`; `screening/screen.py`."""
    BAD_SHAPE = "bad_shape"
    """The longer side is over `MAX_ASPECT` times the shorter; `screening/screen.py`."""
    DUPLICATE = "duplicate"
    """The same content as an image that is kept, or an address that came before;
    `records/image_store.py`, `download_list.py`."""
    NEAR_DUPLICATE = "near_duplicate"
    """The same photograph in another form, by the thresholds of `training/duplicates.py`. Which of
    the two is kept says `is_better` in `records/known_images.py`."""
    IN_TWO_CLASSES = "in_two_classes"
    """Found for two classes, so kept for neither; `records/image_store.py`."""
    OPTED_OUT = "opted_out"
    """Its host, or the file itself, says that it must not be used so: `net/opt_out.py` for hosts,
    `screening/marks.py` for files. The detail names the statement."""
    AI_MADE = "ai_made"
    """Its file says that AI made it, and the setting `PICAISSO_AI_MADE` leaves such images out;
    `screening/marks.py`."""
    LICENSE = "license"
    """Only open licences were wanted, and it has another or an unknown one; `collect.py`."""
    TAKEN_DOWN = "taken_down"
    """The operator has taken it down; `records/takedowns.py`."""
    REFUSED_DIGEST = "refused_digest"
    """The operator refuses it by the digest of its bytes; nothing else of it is recorded;
    `records/refused_digests.py`."""
    NUDITY = "nudity"
    """The operator's model found nudity, or could not judge it; `screening/nudity.py`."""
    OVER_QUOTA = "over_quota"
    """Enough images of its class were there before; `collect.py`."""
