"""What delivered files, their folders, mails and pages are called, so that requests differ.

Names of files and folders are ASCII, in lower case and short: every system and archiver takes
them, whatever the classes are called.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from requests_app.models import Artifact, ClassifierRequest, Kind
from training.phrases import shortened
from training.spliced import SPLICE_SUFFIX

NAMES_COLUMNS = 60  # of the classes in a subject or title
NAME_COLUMNS = 30  # of one class there
STEM_LENGTH = 60  # characters of the classes in a file's name
WORD_LENGTH = 30  # characters of one class there
SPELLED_SIGNS = 4  # of a name without Latin letters: their code points stand for it
# Letters that Unicode does not take apart into a plain one and a mark; signs that tell names apart.
LATIN = str.maketrans(
    {
        "ł": "l",
        "ø": "o",
        "đ": "d",
        "ð": "d",
        "ı": "i",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
        "+": "plus",
        "#": "sharp",
        "&": " and ",
    }
)


def short_names(names: Iterable[str]) -> str:
    """Return class names for a subject or title: as many as fit, and how many more there are.

    Each is one line and cut where it is long.
    """
    listed = ""
    left_out = 0
    for name in names:
        line = " ".join(name.split())
        short = shortened(line, NAME_COLUMNS)
        longer = f"{listed}, {short}" if listed else short
        if left_out or len(longer) > NAMES_COLUMNS:
            left_out += 1
        else:
            listed = longer
    if left_out:
        return f"{listed} and {left_out} more"
    return listed


def names_of(classifier: ClassifierRequest) -> list[str]:
    """Return the class names of a request, in order of submission."""
    return [image_class.name for image_class in classifier.classes.all()]


def top_folder(classifier: ClassifierRequest, kind: str) -> str:
    """Return the one folder that a request's zip of this kind unpacks to."""
    return f"picaisso-{stem(names_of(classifier))}-{kind}"


def file_name(artifact: Artifact) -> str:
    """Return what a delivered file is called where a person gets it."""
    version = artifact.version
    suffix = Path(artifact.path.removesuffix(SPLICE_SUFFIX)).suffix
    return download_name(version.request, artifact.kind, version.number, suffix)


def download_name(classifier: ClassifierRequest, kind: str, number: int, suffix: str) -> str:
    """Return the name of a file of a version; those of later versions say their number."""
    if kind == Kind.PTH:
        kind = Kind.MODEL
    of_version = "" if number == 1 else f"-version-{number}"
    return f"{top_folder(classifier, kind)}{of_version}{suffix}"


def stem(names: Iterable[str]) -> str:
    """Return class names as a part of a file's name: as many as fit, and how many more there are.

    Letters a to z, digits and hyphens, at most ``STEM_LENGTH`` and an ending like ``-and-8-more``.
    """
    joined = ""
    left_out = 0
    for name in names:
        word = _word(name)
        longer = f"{joined}-{word}" if joined else word
        if left_out or len(longer) > STEM_LENGTH:
            left_out += 1
        else:
            joined = longer
    if left_out:
        return f"{joined}-and-{left_out}-more"
    return joined


def _word(name: str) -> str:
    """Return a class name in Latin letters; its first code points where it has none."""
    letters = unicodedata.normalize("NFKD", name.casefold().translate(LATIN))
    unmarked = "".join(sign for sign in letters if not unicodedata.combining(sign))
    word = re.sub("[^a-z0-9]+", "-", unmarked)[:WORD_LENGTH].strip("-")
    if word:
        return word
    return "-".join(f"u{ord(sign):x}" for sign in name[:SPELLED_SIGNS])
