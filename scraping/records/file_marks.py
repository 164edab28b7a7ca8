"""Complete a record with what the image file says of itself (`screening/marks.py`).

What the source states stays: only empty columns are filled. A licence that only the file states has
the basis `file`, which does not satisfy a person who wants open licences: such candidates are left
out before their file is asked for, and a file's words may have been copied from another. For what
was supplied by whoever asks, the basis stays `requester`.
"""

from scraping.records.image_log import ImageRecord
from scraping.records.provenance import Credit, credit_line
from scraping.screening.marks import NO_MARKS, Marks
from scraping.sources.catalogue import is_supplied
from scraping.sources.licenses import License, read_license

BASIS = "file"


def with_marks(record: ImageRecord, marks: Marks) -> ImageRecord:
    """Return the record of a kept image with creator, licence and credit from its file."""
    if marks == NO_MARKS:
        return record
    filled = record.copy()
    if not record["creator"]:
        filled["creator"] = marks.creator
    if not record["license"] and not record["license_url"]:
        _fill_license(filled, marks)
    if record["attribution"] == credit_line(_credit(record)):  # not the source's own words
        filled["attribution"] = credit_line(_credit(filled), marks.rights)
    if marks.ai_made:
        filled["ai_made"] = True
        filled["detail"] = marks.ai_made
    return filled


def _fill_license(record: ImageRecord, marks: Marks) -> None:
    """Take the first licence that is known, else the address where the terms stand."""
    known = License()
    for text in marks.terms:
        known = read_license(text)
        if known.name:
            break
    url = known.url or marks.license_url
    if not known.name and not url:
        return
    record["license"] = known.name
    record["license_version"] = known.version
    record["license_url"] = url
    if not is_supplied(record["source"]):
        record["license_basis"] = BASIS


def _credit(record: ImageRecord) -> Credit:
    return Credit(
        title=record["title"],
        creator=record["creator"],
        license=License(record["license"], record["license_version"], record["license_url"]),
        address=record["page_url"] or record["image_url"],
    )
