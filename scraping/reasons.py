"""The reasons for which an image is rejected; they are part of the public contract."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a candidate was not kept."""

    UNREACHABLE = "unreachable"
    REFUSED_ADDRESS = "refused_address"
    HTTP_ERROR = "http_error"
    TOO_LARGE = "too_large"
    NOT_A_PICTURE = "not_a_picture"
    TOO_SMALL = "too_small"
    BAD_SHAPE = "bad_shape"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    IN_TWO_CLASSES = "in_two_classes"
    OPTED_OUT = "opted_out"
    LICENSE = "license"
    TAKEN_DOWN = "taken_down"
    OVER_QUOTA = "over_quota"
