"""``croissant.json``: describes a dataset.zip to programs, in the vocabulary of MLCommons.

It lies beside the zip, not inside, because it names the zip's checksum. Croissant 1.1 with the RAI
extension: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from picaisso_site import __version__
from requests_app import phrases
from requests_app.delivery.contents import DatasetImage
from requests_app.delivery.dataset_card import left_out, title
from requests_app.delivery.dataset_zip import PublishedFile
from requests_app.delivery.names import download_name, top_folder
from requests_app.models import DatasetVersion, ImageClass, Kind
from scraping.sources.terms import TERMS
from training.run_folder import write_text

# As the specification gives it, with the RAI extension.
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
CONFORMS_TO = [
    "http://mlcommons.org/croissant/1.1",
    "http://mlcommons.org/croissant/RAI/1.0",
]
INDEX_NAME = r"^(?:.*/)?([^/]+/[^/]+/[^/]+)$"  # of a picture, as images.csv has it
UNGUARDED = "^'?(.*)$"  # a class name without the apostrophe of `safe_cell`
# What each field of a record is, by its column in images.csv.
FIELDS: Mapping[str, tuple[str, str]] = {
    "source": ("sc:Text", "The source that the picture was found with."),
    "query": ("sc:Text", "The words that were searched for."),
    "page_url": ("sc:Text", "The page that shows the picture."),
    "image_url": ("sc:Text", "The address that the picture was downloaded from."),
    "title": ("sc:Text", "The title that the source gives."),
    "creator": ("sc:Text", "Who made the picture, as the source says."),
    "license": ("sc:Text", "The licence of this picture; empty where the source states none."),
    "license_version": ("sc:Text", "The version of the licence."),
    "license_url": ("sc:Text", "The text of the licence."),
    "license_basis": (
        "sc:Text",
        "How the licence is known: per-item (the source states it for this picture), file (the"
        " file does), filter (only the search was filtered), person (their own), requester"
        " (whoever asked has supplied it), unknown.",
    ),
    "attribution": ("sc:Text", "The line of credit."),
    "width": ("sc:Integer", "Pixels."),
    "height": ("sc:Integer", "Pixels."),
    "sha256": ("sc:Text", "Digest of the delivered file."),
    "source_sha256": ("sc:Text", "Digest of the bytes as received."),
    "group": ("sc:Integer", "Near-duplicates have the same number, and are in one split."),
}


def build_croissant(
    version: DatasetVersion, images: Sequence[DatasetImage], archive: PublishedFile
) -> PublishedFile:
    """Write ``croissant.json`` beside a published ``dataset.zip``.

    :raises OSError: it could not be written
    """
    path = archive.path.with_name("croissant.json")
    document = _document(version, images, archive)
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    write_text(path, text)
    content = path.read_bytes()
    return PublishedFile(path, len(content), hashlib.sha256(content).hexdigest())


def _document(
    version: DatasetVersion, images: Sequence[DatasetImage], archive: PublishedFile
) -> dict[str, Any]:
    """Return the description. It names the zip as it is downloaded: both go into one folder."""
    classes = list(version.request.classes.all())
    created = version.created.date().isoformat()
    name = title(classes)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": name,
        "description": _description(classes, images),
        "version": f"{version.number}.0.0",
        "datePublished": created,
        "creator": {"@type": "sc:Organization", "name": f"Picaisso {__version__}"},
        "license": _licenses(images),
        "citeAs": f"@misc{{picaisso, title={{{name}}}, year={{{created[:4]}}}}}",
        "keywords": ["image classification", *[c.name for c in classes]],
        **_responsible_use(classes, images),
        "distribution": _distribution(version, archive),
        "recordSet": [_splits(), _classes(classes), _records()],
    }


def _description(classes: Sequence[ImageClass], images: Sequence[DatasetImage]) -> str:
    pictures = phrases.counted(len(images), "picture")
    return (
        f"{pictures} in {len(classes)} classes for image classification, collected from the web"
        " by name, freed of duplicates, and split so that near-duplicates are never in different"
        " splits. Each picture has its page, author and licence."
    )


def _licenses(images: Sequence[DatasetImage]) -> list[str]:
    """Return the licences of all images, each once."""
    found = set()
    for entry in images:
        found.add(entry.image.license_url or entry.image.license)
    is_any_unknown = "" in found
    listed = sorted(found - {""})
    if is_any_unknown:
        listed.append("Some pictures have no known licence; the field license says which.")
    return listed


def _distribution(version: DatasetVersion, archive: PublishedFile) -> list[dict[str, Any]]:
    name = download_name(version.request, Kind.DATASET, version.number, archive.path.suffix)
    top = top_folder(version.request, Kind.DATASET)
    zipped = {
        "@type": "cr:FileObject",
        "@id": "archive",
        "name": name,
        "description": "All pictures and tables.",
        "contentUrl": name,
        "contentSize": f"{archive.bytes} B",
        "encodingFormat": "application/zip",
        "sha256": archive.sha256,
    }
    index = {
        "@type": "cr:FileObject",
        "@id": "index",
        "name": "images.csv",
        "description": "A row per picture.",
        "containedIn": {"@id": "archive"},
        "contentUrl": f"{top}/images.csv",
        "encodingFormat": "text/csv",
    }
    files = {
        "@type": "cr:FileSet",
        "@id": "image-files",
        "name": "image-files",
        "description": "The pictures, in a folder per split and class.",
        "containedIn": {"@id": "archive"},
        "encodingFormat": "image/jpeg",
        "includes": f"{top}/*/*/*.jpg",
    }
    return [zipped, index, files]


def _splits() -> dict[str, Any]:
    """Return the record set of the splits, which the split of a picture refers to."""
    rows = [
        {"splits/name": "train", "splits/url": "cr:TrainingSplit"},
        {"splits/name": "val", "splits/url": "cr:ValidationSplit"},
        {"splits/name": "test", "splits/url": "cr:TestSplit"},
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "What the splits are for.",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": "sc:URL"},
        ],
        "data": rows,
    }


def _classes(classes: Sequence[ImageClass]) -> dict[str, Any]:
    """Return the record set of the classes, in the order of the model's outputs."""
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "The classes by the names of their folders.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/id"},
        "field": [
            {"@type": "cr:Field", "@id": "classes/id", "name": "id", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "classes/name", "name": "name", "dataType": "sc:Text"},
        ],
        "data": [{"classes/id": c.class_id, "classes/name": c.name} for c in classes],
    }


def _records() -> dict[str, Any]:
    """Return the record set of the pictures: each with its row of images.csv."""
    name: dict[str, Any] = _field("file_name", "sc:Text", "Split, class and file.")
    name["source"] = {
        "fileSet": {"@id": "image-files"},
        "extract": {"fileProperty": "fullpath"},
        "transform": {"regex": INDEX_NAME},
    }
    name["references"] = {"fileObject": {"@id": "index"}, "extract": {"column": "file_name"}}
    image = _field("image", "sc:ImageObject", "The picture.")
    image["source"] = {
        "fileSet": {"@id": "image-files"},
        "extract": {"fileProperty": "content"},
    }
    split = _field("split", "sc:Text", "train, val or test.")
    split["source"] = _column("split")
    split["references"] = {"field": {"@id": "splits/name"}}
    label = _field("label", "sc:Text", "The name of the class.")
    label["dataType"] = ["sc:Text", "cr:Label"]
    label["source"] = _column("class") | {"transform": {"regex": UNGUARDED}}
    fields = [name, image, split, label]
    for column, (data_type, description) in FIELDS.items():
        field = _field(column, data_type, description)
        field["source"] = _column(column)
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "The pictures with label, split, licence and provenance.",
        "key": {"@id": "images/file_name"},
        "field": fields,
    }


def _field(name: str, data_type: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"images/{name}",
        "name": name,
        "description": description,
        "dataType": data_type,
    }


def _column(name: str) -> dict[str, Any]:
    return {"fileObject": {"@id": "index"}, "extract": {"column": name}}


def _responsible_use(
    classes: Sequence[ImageClass], images: Sequence[DatasetImage]
) -> dict[str, Any]:
    """Return the fields of the RAI extension."""
    searched = {entry.image.source for entry in images} & set(TERMS)
    sources = ", ".join(sorted(phrases.source_title(name) for name in searched))
    brought = sum(entry.image.source not in TERMS for entry in images)
    collected = []
    if sources:
        collected.append(f"Searched for by name with {sources}.")
    if brought:
        pictures = phrases.counted(brought, "picture is", "pictures are")
        collected.append(f"{pictures} from whoever asked for this dataset.")
    collected.append("Hosts and files that opt out of such use were left out.")
    words = ", ".join(left_out(classes)) or "nothing"
    fetched = [entry.image.fetched_at for entry in images if entry.image.fetched_at]
    return {
        "rai:dataCollection": " ".join(collected),
        "rai:dataCollectionType": ["Web Scraping", "Web API"],
        "rai:dataCollectionMissingData": f"Left out: {words}.",
        "rai:dataCollectionRawData": "image_url and page_url name what was downloaded;"
        " source_sha256 is the digest of its bytes.",
        "rai:dataCollectionTimeframe": _timeframe(fetched),
        "rai:dataPreprocessingProtocol": [
            "Turned upright, scaled down to the longest side allowed, stored as JPEG.",
            "Duplicates were removed, and near-duplicates kept in one split.",
        ],
        "rai:dataAnnotationProtocol": [
            "A picture has the class whose name it was found by. Where a person has removed or"
            " relabelled pictures, that is counted in."
        ],
        "rai:dataBiases": [
            "Search engines rank what is popular, in English unless another language was chosen:"
            " typical views, few regions, mostly well-lit and centred.",
            "Sources differ between classes; a model may learn the source and not the thing.",
        ],
        "rai:dataLimitations": [
            "Labels come from search words and were not all checked: some are wrong.",
            "Small: figures on the test split have the interval that the report gives.",
        ],
        "rai:dataUseCases": [
            "Training and testing an image classifier for these classes. Not for deciding about"
            " people."
        ],
        "rai:personalSensitiveInformation": [
            "People may be recognised in pictures, and authors are named for credit. Nothing was"
            " done to find or blur faces."
        ],
        "rai:dataReleaseMaintenancePlan": "Versions never change, except that a picture whose"
        " owner objects is taken out of all of them.",
    }


def _timeframe(fetched: Sequence[datetime]) -> list[str]:
    """Return when the first and the last picture were downloaded."""
    if not fetched:
        return []
    return [min(fetched).date().isoformat(), max(fetched).date().isoformat()]
