"""What a dataset holds: its images, each with class and split in the frozen manifest."""

from dataclasses import dataclass
from pathlib import Path

from requests_app.models import ImageClass, ImageUrl

GBIF = "gbif"  # the source whose terms ask to name the dataset of each record


@dataclass(frozen=True)
class DatasetImage:
    """One delivered image: its row in the database, and class and split in the frozen manifest."""

    image: ImageUrl
    label: ImageClass
    split: str
    group: int | None  # of near-duplicates

    @property
    def class_id(self) -> str:
        return self.label.class_id

    @property
    def file_name(self) -> str:
        """Return the name inside ``dataset.zip``, below its top folder."""
        return f"{self.split}/{self.class_id}/{Path(self.image.file).name}"
