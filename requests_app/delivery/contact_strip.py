"""A strip of a few pictures of a dataset: the one picture in a mail about a result."""

import io
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from PIL import Image, ImageOps

from requests_app.delivery import thumbnails
from requests_app.models import OWN_SOURCE, ClassifierRequest, DatasetVersion, ImageState, ImageUrl

PICTURES = 6
SIDE = 160  # pixels of each picture, about twice what is shown: sharp on fine screens too
GAP = 6  # pixels
GAP_COLOUR = (220, 217, 208)
QUALITY = 82


def strip(version: DatasetVersion) -> bytes | None:
    """Return a JPEG of some of a version's pictures side by side, None where there are none.

    It is made when it is needed, so that no picture that was taken down is in it.
    """
    squares = []
    for image in chosen(version):
        small = thumbnails.thumbnail(image)
        if small is not None:
            squares.append(_square(small))
    if not squares:
        return None
    step = SIDE + GAP
    width = len(squares) * step - GAP
    whole = Image.new("RGB", (width, SIDE), GAP_COLOUR)
    for position, square in enumerate(squares):
        whole.paste(square, (position * step, 0))
    content = io.BytesIO()
    whole.save(content, "JPEG", quality=QUALITY, optimize=True)
    return content.getvalue()


def chosen(version: DatasetVersion) -> list[ImageUrl]:
    """Return the pictures of the strip, class by class, the first that the sources gave.

    None of them is suspected to have a wrong label.
    """
    in_turn: list[ImageUrl] = []
    for images in zip_longest(*_first_of_each_class(version)):
        in_turn += filter(None, images)
    few = in_turn[:PICTURES]
    few.sort(key=lambda image: (image.current_class.number, image.rank, image.pk))
    return few


def shown_classes(classifier: ClassifierRequest) -> list[str]:
    """Return the names of the classes that a strip has pictures of."""
    classes = classifier.classes.all()[:PICTURES]
    return [image_class.name for image_class in classes]


def _first_of_each_class(version: DatasetVersion) -> Iterator[list[ImageUrl]]:
    classifier = version.request
    images = ImageUrl.objects.of_request(classifier)
    unsuspected = images.filter(state=ImageState.KEPT, suspect=None).exclude(source=OWN_SOURCE)
    for image_class in classifier.classes.all()[:PICTURES]:
        own = unsuspected.of_class(image_class)
        in_order = own.select_related("image_class__request", "label").order_by("rank", "pk")
        yield list(in_order[:PICTURES])


def _square(file: Path) -> Image.Image:
    with Image.open(file) as image:
        rgb = image.convert("RGB")
    return ImageOps.fit(rgb, (SIDE, SIDE))
