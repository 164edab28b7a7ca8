"""What the API takes and answers. Times are UTC, in ISO 8601."""

from datetime import datetime
from typing import Any, Literal

from ninja import Schema
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from requests_app.forms import (
    MAX_CLASSES,
    MAX_IMAGES,
    MAX_NAME_LENGTH,
    MAX_QUERY_LENGTH,
    MIN_CLASSES,
    MIN_IMAGES,
)

TAKEN = ConfigDict(extra="forbid", strict=True)
NAME: JsonDict = {"minLength": 1, "maxLength": MAX_NAME_LENGTH}
QUERY: JsonDict = {"maxLength": MAX_QUERY_LENGTH}
NAMES: JsonDict = {"minItems": MIN_CLASSES, "maxItems": MAX_CLASSES, "uniqueItems": True}
IMAGES: JsonDict = {"minimum": MIN_IMAGES, "maximum": MAX_IMAGES}
# These tell the limits; it is the form's rules that refuse, with their sentences.
StateOfImage = Literal["kept", "removed", "rejected"]


class ClassWish(Schema):
    """A class whose search words are not its name."""

    model_config = TAKEN
    name: str = Field(examples=["jaguar"], json_schema_extra=NAME)
    query: str = Field("", examples=["jaguar cat animal"], json_schema_extra=QUERY)


class NewRequest(Schema):
    """What is asked for; all but the first two fields are optional."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "classes": ["corgi", {"name": "jaguar", "query": "jaguar cat animal"}],
                    "email": "a@example.org",
                    "images_per_class": 100,
                }
            ]
        },
    )
    classes: list[str | ClassWish] = Field(
        description="2 to 10 names of what is to be told apart.", json_schema_extra=NAMES
    )
    email: str = Field(
        description="The result is sent there, after the address was confirmed.",
        json_schema_extra={"format": "email"},
    )
    images_per_class: int | None = Field(
        None, description="20 to 500; 100 if not given.", json_schema_extra=IMAGES
    )
    license: str | None = Field(None, description="`any` or `open` (CC0, CC BY, CC BY-SA).")
    backbone: str | None = Field(None, description="The network to start from.")
    sources: list[str] | None = Field(None, description="Of this site's, in the order asked.")
    locale: str | None = Field(None, description="Of the searches, as `en-US`.")
    kind: str | None = Field(None, description="What kind of things these are, as `animal`.")


class RequestWithPictures(NewRequest):
    """What is asked for with pictures of one's own."""

    own_as_test: bool = False
    own_alone: bool = False


class RetryWishes(Schema):
    """What is to be otherwise; all is optional."""

    model_config = TAKEN
    classes: list[str | ClassWish] | None = Field(
        None, description="Classes with new search words; the pictures of old ones are dropped."
    )
    images_per_class: int | None = None
    sources: list[str] | None = None
    license: str | None = None
    kind: str | None = None
    accept_fewer: bool = Field(False, description="Train with what was found.")
    leave_out: list[str] = Field([], description="Names of classes to go on without.")


class ImageWish(Schema):
    """What a picture is to be from now on."""

    model_config = TAKEN
    state: Literal["kept", "removed"] | None = None
    class_name: str | None = Field(None, alias="class", description="Another class, by its name.")


class Address(Schema):
    """Where a picture lies."""

    model_config = TAKEN
    url: str = Field(examples=["https://example.org/picture.jpg"])


class BroughtAlong(Schema):
    """Pictures and addresses that came with the request, and what cannot be used of them."""

    pictures: int
    addresses: int
    as_test: bool
    alone: bool
    unused: list[list[str]] = Field(description="Name or row, and why; the first 20.")
    unused_count: int


class Problem(Schema):
    """What is wrong."""

    code: str
    message: str
    fields: dict[str, str]


class ErrorEnvelope(Schema):
    """Every error."""

    error: Problem


class ClassState(Schema):
    """A class and what the search for it gave."""

    name: str
    query: str
    asked: int
    found: int
    kept: int
    rejected: dict[str, int] = Field(description="Reason to number of pictures.")


class SourceState(Schema):
    """How one source answered for one class."""

    name: str
    class_name: str = Field(alias="class")
    outcome: str
    found: int
    message: str


class Progress(Schema):
    """How far the work has come."""

    stage: str | None
    done: int
    total: int
    eta_seconds: float | None
    message: str


class VersionSummary(Schema):
    """A dataset version and what its model reached."""

    number: int
    backbone: str
    images: int
    accuracy: float
    interval: list[float] = Field(description="95 % interval of the accuracy.")
    macro_f1: float


class ArtifactState(Schema):
    """A file to download; `url` answers ranges and has the sum as its ETag."""

    kind: str
    version: int
    url: str
    bytes: int
    sha256: str


class RequestError(Schema):
    """Why the work has stopped, and what helps."""

    stage: str
    reason: str
    remedy: str


class RequestState(Schema):
    """One request."""

    id: str
    url: str = Field(description="Its page.")
    status: str
    stage: str | None
    created: datetime
    images_per_class: int
    license: str
    backbone: str
    own: BroughtAlong | None = Field(description="What was brought along with the request.")
    classes: list[ClassState]
    sources: list[SourceState]
    progress: Progress
    versions: list[VersionSummary]
    artifacts: list[ArtifactState]
    error: RequestError | None


class ImageItem(Schema):
    """One picture."""

    id: int
    class_name: str = Field(alias="class")
    state: StateOfImage
    split: str | None
    thumbnail: str | None
    source: str
    page_url: str
    license: str
    creator: str
    suspect: float | None
    reason: str | None


class ImagePage(Schema):
    """Up to a hundred pictures."""

    count: int
    page: int
    pages: int
    items: list[ImageItem]


class Prediction(Schema):
    """What the model says of one picture."""

    label: str
    known: bool = Field(description="False: the picture looks like none of the classes.")
    probabilities: dict[str, float]
    version: int
    elapsed_ms: float


class Comparison(Schema):
    """Two versions on the test pictures that both have."""

    against: int
    images: int
    right_before: int
    right_after: int
    mended: int
    broken: int
    p_value: float | None
    sentence: str


class VersionState(VersionSummary):
    """A dataset version in full."""

    created: datetime
    verdict: str
    notices: list[str]
    comparison: Comparison | None
    report: str
    artifacts: list[ArtifactState]


class VersionList(Schema):
    """All versions that have a model, the newest first."""

    items: list[VersionState]
    changes: dict[str, int] = Field(description="What a next version would have otherwise.")
    obstacle: str = Field(description="Why no training can begin now; empty if it can.")


class ShareLink(Schema):
    """The link for others, which can change nothing; null while there is none."""

    url: str | None


Json = dict[str, Any]
