"""The tables of Picaisso: people's requests, what was found for them, and the work to be done.

Allowed moves of a request (one UPDATE filtered on the old state plus one Event row, see
``ClassifierRequest.move``)::

    unconfirmed ──▶ queued ──▶ running ──▶ delivered ──▶ queued (train again)
         │            │  ▲        │  └────▶ needs_attention ──▶ queued | cancelled
         │            │  │        └───────▶ failed ───────────▶ queued
         ▼            ▼  └── retry ── cancelled
      expired     cancelled ◀── running
    queued ──▶ delivered: a second training was cancelled, the first model stays
    delivered, needs_attention, failed, cancelled ──▶ expired

Moves of a job: ``queued ──▶ running ──▶ done | failed | cancelled`` and ``running ──▶ queued`` when
its lease runs out. Everything a clock decides (waiting for a worker, stalled, percent) is computed,
never stored.
"""

import base64
import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.urls import reverse
from django.utils import timezone

from requests_app import phrases
from requests_app.digests import mailbox_digest
from scraping.kinds import search_words
from scraping.urls import url_digest
from training.networks.catalogue import CHOICES as BACKBONES
from training.networks.catalogue import DEFAULT as DEFAULT_BACKBONE

Row = dict[str, Any]

OWN_SOURCE = "own"  # of pictures that a person added; every other source was searched
OWN_FOLDER = "own"  # of their files, in the folder of the collection


class Status(models.TextChoices):
    UNCONFIRMED = "unconfirmed"
    QUEUED = "queued"
    RUNNING = "running"
    DELIVERED = "delivered"
    NEEDS_ATTENTION = "needs_attention"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class License(models.TextChoices):
    ANY = "any", "Any licence"
    OPEN = "open", "Open licences only"


ALLOWED_MOVES: dict[str, set[str]] = {
    Status.UNCONFIRMED: {Status.QUEUED, Status.CANCELLED, Status.EXPIRED},
    Status.QUEUED: {Status.RUNNING, Status.CANCELLED, Status.FAILED, Status.DELIVERED},
    Status.RUNNING: {
        Status.DELIVERED,
        Status.NEEDS_ATTENTION,
        Status.FAILED,
        Status.CANCELLED,
        Status.QUEUED,
    },
    Status.DELIVERED: {Status.QUEUED, Status.EXPIRED},
    Status.NEEDS_ATTENTION: {Status.QUEUED, Status.CANCELLED, Status.EXPIRED},
    Status.FAILED: {Status.QUEUED, Status.EXPIRED},
    Status.CANCELLED: {Status.QUEUED, Status.EXPIRED},
    Status.EXPIRED: set(),
}


def token_for(pk: int, link_version: int, purpose: str = "request") -> str:
    """Return the public id of a request (32 characters), which opens its page.

    It is derived from the secret key, so that it need not be stored.

    :param purpose: "request", or "share" for the link that can change nothing
    """
    key = settings.SECRET_KEY.encode()
    message = f"{purpose}:{pk}:{link_version}".encode()
    digest = hmac.new(key, message, hashlib.sha256).digest()
    token = base64.urlsafe_b64encode(digest).decode()
    return token[:32]


def sha256_hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class RequestQuerySet(models.QuerySet["ClassifierRequest"]):
    def renew_tokens(self) -> int:
        """Derive the tokens anew where the secret key has changed; return how many did change.

        Old links end, and later mails carry working ones. By the digests of its mailbox the
        requests of one person are known.
        """
        changed = 0
        for pk, email, mailbox in self.values_list("pk", "email", "mailbox"):
            current = mailbox_digest(email)
            if current != mailbox:
                self.filter(pk=pk).update(mailbox=current)
        for pk, version, digest in self.values_list("pk", "link_version", "token_sha256"):
            current_digest = sha256_hex(token_for(pk, version))
            if current_digest != digest:
                changed += self.filter(pk=pk).update(token_sha256=current_digest)
        for classifier in self.exclude(share_sha256=None):
            digest = sha256_hex(classifier.share_token)
            self.filter(pk=classifier.pk).update(share_sha256=digest)
        return changed

    def busy_mailboxes(self) -> list[str]:
        """Return the digests of the mailboxes of which as many requests run as may at a time."""
        most = settings.RUNNING_PER_ADDRESS
        if most <= 0:
            return []
        begun = models.Q(status=Status.RUNNING) | models.Q(jobs__state=JobState.RUNNING)
        running = self.filter(begun).exclude(mailbox="").order_by()
        counted = running.values("mailbox").annotate(count=models.Count("pk", distinct=True))
        return [row["mailbox"] for row in counted if row["count"] >= most]

    def used_bytes(self) -> int:
        """Return how many bytes the files of all requests took when they were counted last."""
        return self.aggregate(total=models.Sum("disk_bytes"))["total"] or 0

    def by_token(self, token: str) -> "ClassifierRequest | None":
        """Return the request that this token opens, or None.

        It is looked up by its digest, so that no token is compared in the clear.
        """
        digest = sha256_hex(token)
        return self.filter(token_sha256=digest).first()

    def by_share_token(self, token: str) -> "ClassifierRequest | None":
        """Return the request that this token shows without letting anything be changed, or None."""
        digest = sha256_hex(token)
        return self.filter(share_sha256=digest).first()


class ClassifierRequest(models.Model):
    """One submission: classes, an e-mail address and options."""

    email = models.EmailField(max_length=254)
    mailbox = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_index=True,
        editable=False,
        help_text="Salted digest of the mailbox, by which limits know it.",
    )
    status = models.CharField(
        max_length=20, choices=Status.choices, default=Status.UNCONFIRMED, db_index=True
    )
    created = models.DateTimeField(default=timezone.now, db_index=True)
    moved = models.DateTimeField(default=timezone.now, help_text="When the status last changed.")
    link_version = models.PositiveIntegerField(
        default=1, help_text="A new version revokes older links."
    )
    token_sha256 = models.CharField(max_length=64, unique=True, editable=False)
    share_version = models.PositiveIntegerField(
        default=0, help_text="How often a link for others was made; a new one revokes the older."
    )
    # null and not empty: many requests have none, and those that have one differ.
    share_sha256 = models.CharField(  # noqa: DJ001
        max_length=64, unique=True, null=True, editable=False, help_text="null: it is not shared."
    )
    images_per_class = models.PositiveIntegerField(default=100)
    license = models.CharField(max_length=8, choices=License.choices, default=License.ANY)
    backbone = models.CharField(max_length=32, choices=BACKBONES, default=DEFAULT_BACKBONE)
    sources = models.JSONField(
        default=list, blank=True, help_text="Ordered source names; empty: the site's."
    )
    locale = models.CharField(max_length=16, default="en-US")
    kind = models.CharField(
        max_length=64,
        blank=True,
        default="",
        help_text="What the classes are, as typed; added to their names in a search.",
    )
    find_kind = models.BooleanField(
        default=True, help_text="Find out the kind of things where none was typed."
    )
    kind_found = models.JSONField(
        default=dict,
        blank=True,
        help_text="How the collection asks: word, how (given, derived, none), sentence.",
    )
    supplied = models.JSONField(
        default=dict,
        blank=True,
        help_text="What the person brought along: pictures, addresses, as_test, alone, unused.",
    )
    accept_fewer = models.BooleanField(
        default=False, help_text="Train even with fewer pictures than the minimum."
    )
    disk_bytes = models.PositiveBigIntegerField(
        default=0, help_text="Of its files on disk, when they were counted last."
    )
    error = models.JSONField(
        null=True, blank=True, help_text="stage, reason, remedy; null when all is well."
    )
    erased = models.DateTimeField(
        null=True,
        help_text="When nothing of it was left; null: it is there, or still being deleted.",
    )

    objects = RequestQuerySet.as_manager()

    class Meta:
        ordering = ["-created"]
        verbose_name = "request"
        indexes = [models.Index(fields=["status", "erased"], name="not_erased_yet")]

    def __str__(self) -> str:
        """Return its number alone: this stands in logs, which outlive what a person typed."""
        return f"Request {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("request", args=[self.token])

    @classmethod
    @transaction.atomic
    def create(cls, *, class_queries: list[tuple[str, str]], **fields: Any) -> "ClassifierRequest":
        """Make a request with its classes.

        :param class_queries: (name, query) in the order of submission; an empty query means the
            name
        """
        fields["mailbox"] = mailbox_digest(str(fields.get("email", "")))
        # The token needs the primary key. Until it is known, a random digest keeps the column
        # unique.
        classifier = cls.objects.create(**fields, token_sha256=secrets.token_hex(32))
        classifier.token_sha256 = sha256_hex(classifier.token)
        classifier.save(update_fields=["token_sha256"])
        classes = []
        for number, (name, query) in enumerate(class_queries, start=1):
            image_class = ImageClass(request=classifier, number=number, name=name)
            image_class.query = query or name
            classes.append(image_class)
        ImageClass.objects.bulk_create(classes)
        Event.objects.create(request=classifier, new=classifier.status, reason="submitted")
        return classifier

    @property
    def token(self) -> str:
        return token_for(self.pk, self.link_version)

    @property
    def url(self) -> str:
        """Return the absolute address of the request's page."""
        return settings.BASE_URL + self.get_absolute_url()

    @property
    def share_token(self) -> str:
        """Return the public id of the shared result, which counts only while it is shared."""
        return token_for(self.pk, self.share_version, "share")

    @property
    def looked_at(self) -> str:
        """How many test images a person has looked at, as a sentence; "" for none."""
        if not self.decisions.filter(undone=None).exists():
            return ""  # without reading all rows of images
        tested = ImageUrl.objects.of_request(self).filter(split="test")
        tested = tested.exclude(state=ImageState.REJECTED)
        untouched = models.Q(state=ImageState.KEPT, judged="", label=None)
        counts = tested.aggregate(
            tested=models.Count("pk"), looked_at=models.Count("pk", filter=~untouched)
        )
        return phrases.looked_at(counts["looked_at"], counts["tested"])

    @property
    def brought_along(self) -> str:
        """What the person brought along, in a sentence; "" for nothing."""
        return phrases.brought_along(self.supplied)

    @property
    def share_url(self) -> str:
        """Return the absolute address of the shared result, "" while it is not shared."""
        if self.share_sha256 is None:
            return ""
        return settings.BASE_URL + reverse("shared", args=[self.share_token])

    @property
    def folder(self) -> Path:
        """Return the folder of everything on disk that belongs to this request."""
        requests = Path(settings.DATA_DIR) / "requests"
        return requests / str(self.pk)

    @property
    def search_kind(self) -> str:
        """Return the kind of things that is added to names in a search, "" for none."""
        return self.kind or str(self.kind_found.get("word", ""))

    @property
    def is_open(self) -> bool:
        """Return whether something is still going to happen without the person's help."""
        return self.status in (Status.UNCONFIRMED, Status.QUEUED, Status.RUNNING)

    def move(
        self,
        new: str,
        *,
        reason: str = "",
        actor: str = "",
        error: Row | None = None,
        moved_before: datetime | None = None,
    ) -> bool:
        """Move to ``new`` if the row is still in the state that this object has seen.

        :param moved_before: if given, only if it has been in that state for so long
        :returns: False if someone else was faster, or if such a move is not allowed
        """
        old = self.status
        if new not in ALLOWED_MOVES[old]:
            return False
        now = timezone.now()
        with transaction.atomic():
            unmoved = ClassifierRequest.objects.filter(pk=self.pk, status=old)
            if moved_before is not None:
                unmoved = unmoved.filter(moved__lt=moved_before)
            if not unmoved.update(status=new, moved=now, error=error):
                return False
            Event.objects.create(request=self, old=old, new=new, reason=reason, actor=actor)
        self.status = new
        self.moved = now
        self.error = error
        return True


class IdempotencyKey(models.Model):
    """A call of the API that was done, so that the same call, sent again, is not done twice."""

    key_sha256 = models.CharField(max_length=64, unique=True)
    wish_sha256 = models.CharField(max_length=64)
    request = models.ForeignKey(ClassifierRequest, on_delete=models.CASCADE, null=True)
    created = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ["pk"]
        verbose_name = "repeatable call"

    def __str__(self) -> str:
        return f"Key {self.pk} for request {self.request_id}"


class Allowance(models.Model):
    """When somebody did lately what is limited; see ``requests_app/limits.py``.

    It says who by a salted digest alone, and is deleted when it limits nothing any more.
    """

    rule = models.CharField(max_length=16)
    digest = models.CharField(max_length=64, help_text="Of a mailbox or a network, salted.")
    taken = models.JSONField(default=list, help_text="Times, in seconds of the Unix epoch.")
    until = models.DateTimeField(db_index=True, help_text="When it can be deleted.")

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["rule", "digest"], name="allowance_once_per_rule")
        ]

    def __str__(self) -> str:
        return f"{self.rule}: {len(self.taken)} times"


class LinksWish(models.Model):
    """Somebody asks for the links of an address; the next round of mails answers and deletes it.

    It is written whether the address is known or not, so that nothing can be told from the answer.
    """

    email = models.EmailField(max_length=254)
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["pk"]
        verbose_name = "wish for links"
        verbose_name_plural = "wishes for links"

    def __str__(self) -> str:
        return f"Wish {self.pk}"


class ImageClass(models.Model):
    """One label of a request, with the query used to search for it and what the search gave."""

    request = models.ForeignKey(ClassifierRequest, on_delete=models.CASCADE, related_name="classes")
    number = models.PositiveSmallIntegerField(help_text="1-based, in the order of submission.")
    name = models.CharField(max_length=64)
    query = models.CharField(max_length=200)
    found = models.PositiveIntegerField(default=0)
    kept = models.PositiveIntegerField(default=0)
    rejected = models.JSONField(default=dict, blank=True, help_text="reason: count")
    outcomes = models.JSONField(
        default=list, blank=True, help_text="One per source asked: name, outcome, found, message."
    )
    has_one_meaning = models.BooleanField(
        default=False, help_text="A person says that all of its groups of images are right."
    )
    keeps_earlier = models.BooleanField(
        default=False, help_text="What its earlier words found stays when it is searched again."
    )

    class Meta:
        ordering = ["request", "number"]
        verbose_name = "class"
        verbose_name_plural = "classes"
        constraints = [
            models.UniqueConstraint(
                fields=["request", "number"], name="class_number_once_per_request"
            )
        ]

    def __str__(self) -> str:
        return self.name

    def count_images(self) -> None:
        """Count what became of the images that were found, once their collection has ended.

        A person's own pictures never counted as found.
        """
        if not self.found:
            return
        images = self.images.exclude(source=OWN_SOURCE).order_by()
        self.kept = images.filter(state=ImageState.KEPT).count()
        rejected = images.filter(state=ImageState.REJECTED).values_list("reason")
        self.rejected = dict(rejected.annotate(models.Count("pk")))
        self.save(update_fields=["kept", "rejected"])

    @property
    def search_words(self) -> str:
        """Return the words that full-text sources are asked for first."""
        return search_words(self.name, self.query, self.request.search_kind)

    @property
    def class_id(self) -> str:
        """Return the folder name of this class, made of nothing a person typed: ``c001``."""
        return f"c{self.number:03d}"


class ImageState(models.TextChoices):
    KEPT = "kept"
    REMOVED = "removed"
    REJECTED = "rejected"


class Judged(models.TextChoices):
    """What a person says of a test picture; the values are those of ``verified.csv``."""

    RIGHT = "right"
    OTHER_CLASS = "other class"
    OFF_TOPIC = "off-topic"


class ImageQuerySet(models.QuerySet["ImageUrl"]):
    def of_request(self, classifier: ClassifierRequest) -> "ImageQuerySet":
        """Return the images of a request, each with the class found for and the one given."""
        images = self.filter(image_class__request=classifier)
        return images.select_related("image_class", "label")

    def of_class(self, image_class: ImageClass) -> "ImageQuerySet":
        """Return the images that count as this class now."""
        given = models.Q(label=image_class)
        found = models.Q(label=None, image_class=image_class)
        return self.filter(given | found)


class ImageUrl(models.Model):
    """One candidate image: where it was found, its licence, and its fate."""

    image_class = models.ForeignKey(ImageClass, on_delete=models.CASCADE, related_name="images")
    source = models.CharField(max_length=32)
    query = models.CharField(max_length=200)
    rank = models.PositiveIntegerField(default=0)
    image_url = models.TextField()
    url_sha256 = models.CharField(max_length=64, editable=False)
    page_url = models.TextField(blank=True)
    title = models.TextField(blank=True)
    creator = models.TextField(blank=True)
    license = models.CharField(max_length=64, blank=True)
    license_version = models.CharField(max_length=16, blank=True)
    license_url = models.TextField(blank=True)
    license_basis = models.CharField(
        max_length=16, blank=True, help_text="per-item, filter, file or unknown"
    )
    attribution = models.TextField(blank=True)
    dataset_key = models.CharField(
        max_length=36, blank=True, default="", help_text="Of GBIF, as its terms ask."
    )
    state = models.CharField(max_length=10, choices=ImageState.choices)
    reason = models.CharField(max_length=24, blank=True)
    detail = models.TextField(blank=True)
    file = models.CharField(
        max_length=64, blank=True, help_text="Path inside the collection folder."
    )
    sha256 = models.CharField(max_length=64, blank=True, db_index=True)
    source_sha256 = models.CharField(max_length=64, blank=True, db_index=True)
    width = models.PositiveIntegerField(null=True)
    height = models.PositiveIntegerField(null=True)
    bytes = models.PositiveIntegerField(null=True)
    mime = models.CharField(max_length=64, blank=True)
    http_status = models.PositiveSmallIntegerField(null=True)
    fetched_at = models.DateTimeField(null=True)
    split = models.CharField(
        max_length=5, blank=True, help_text="train, val or test in the latest version"
    )
    group = models.IntegerField(null=True, help_text="near-duplicate group in the latest version")
    version_number = models.PositiveSmallIntegerField(
        null=True, help_text="Number of its class in the latest version; null: it is not in it."
    )
    label = models.ForeignKey(
        ImageClass,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="The class that a person gave it; empty: the one that it was found for.",
    )
    predicted = models.PositiveSmallIntegerField(
        null=True, help_text="Number of the class that the latest model takes it for, unseen."
    )
    suspect = models.FloatField(
        null=True, help_text="How doubtful it is, 0 to 1; null: not suspected."
    )
    suspect_reason = models.TextField(blank=True)
    judged = models.CharField(
        max_length=12,
        blank=True,
        choices=Judged.choices,
        help_text="What a person said of this test picture, without seeing the model's answer.",
    )
    judged_number = models.PositiveSmallIntegerField(
        null=True, help_text="Number of the class that the person saw in it, where it is known."
    )

    objects = ImageQuerySet.as_manager()

    class Meta:
        ordering = ["image_class", "rank", "pk"]
        verbose_name = "picture"
        constraints = [
            models.UniqueConstraint(fields=["image_class", "url_sha256"], name="url_once_per_class")
        ]
        # The gallery's page in its order, and its counts, without reading the rows.
        indexes = [
            models.Index(fields=["image_class", "state", "rank"], name="picture_order"),
            models.Index(
                fields=["image_class", "state", "split", "label", "source", "license", "suspect"],
                name="picture_counts",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.source}: {self.image_url[:80]}"

    @property
    def digests(self) -> set[str]:
        """Return the digests by which it may have been taken down.

        They are those of its address, of the address of its page, and of its bytes as received and
        as stored.
        """
        addresses = [address for address in (self.image_url, self.page_url) if address]
        contents = [digest for digest in (self.sha256, self.source_sha256) if digest]
        return {url_digest(address) for address in addresses} | set(contents)

    @property
    def current_class(self) -> ImageClass:
        """Return the class that it counts as: the one that a person gave it, if one did."""
        return self.label or self.image_class


class Decision(models.Model):
    """One step in which a person removed, restored, relabelled, judged or added images.

    It keeps what the images were before, so that it can be undone at any later time.
    """

    class Action(models.TextChoices):
        REMOVE = "remove"
        RESTORE = "restore"
        RELABEL = "relabel"
        JUDGE = "judge"
        ADD = "add"

    request = models.ForeignKey(
        ClassifierRequest, on_delete=models.CASCADE, related_name="decisions"
    )
    at = models.DateTimeField(default=timezone.now)
    actor = models.CharField(max_length=64, help_text="person, or the name of one of the staff")
    action = models.CharField(max_length=8, choices=Action.choices)
    value = models.CharField(
        max_length=64, blank=True, help_text="The name of the class given, or the judgement."
    )
    before = models.JSONField(
        help_text="What each image was: its key -> state, label, judged, judged_number."
    )
    undone = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.action} of {len(self.before)} images"


class OwnCheck(models.Model):
    """A person's own pictures, given to measure a model on, and what came of it.

    The files as given go when the figures are made; the clean copies a day later at the latest,
    unless some of them were added to the dataset: the others then measure its next versions.
    """

    request = models.ForeignKey(
        ClassifierRequest, on_delete=models.CASCADE, related_name="own_checks"
    )
    created = models.DateTimeField(default=timezone.now)
    received = models.PositiveIntegerField(default=0, help_text="Files given and not yet refused.")
    received_bytes = models.PositiveBigIntegerField(default=0)
    refused = models.JSONField(default=list, help_text="[name of the file, why it was refused]")
    asked = models.DateTimeField(null=True, help_text="When the measuring was asked for.")
    measured = models.DateTimeField(null=True)
    version_number = models.PositiveIntegerField(null=True, help_text="Of the version measured.")
    result = models.JSONField(null=True, help_text="As training.measure returns it.")
    earlier = models.JSONField(
        null=True, help_text="version, and the held-out pictures that it had right."
    )
    error = models.TextField(blank=True)
    trained = models.PositiveIntegerField(default=0, help_text="Pictures added to the dataset.")
    calibrates = models.BooleanField(
        default=False, help_text="Whether the try page uses its temperature and threshold."
    )
    removed = models.DateTimeField(null=True, help_text="When the pictures were deleted.")

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.received} own pictures for request {self.request_id}"

    @property
    def folder(self) -> Path:
        """Return the folder of the pictures: received/ and clean/, a sub-folder per class."""
        return self.request.folder / "own" / str(self.pk)

    @property
    def screened(self) -> Path:
        """Return the path of the table of cleaned files, which lies beside them."""
        return self.folder / "clean" / "screened.jsonl"


class DatasetVersion(models.Model):
    """A frozen set of kept images with their split: the manifest of its run folder says which."""

    request = models.ForeignKey(
        ClassifierRequest, on_delete=models.CASCADE, related_name="versions"
    )
    number = models.PositiveIntegerField()
    created = models.DateTimeField(default=timezone.now)
    images = models.PositiveIntegerField(default=0)
    manifest_sha256 = models.CharField(
        max_length=64, blank=True, help_text="Set when training has frozen the split."
    )

    class Meta:
        ordering = ["request", "number"]
        constraints = [
            models.UniqueConstraint(
                fields=["request", "number"], name="version_number_once_per_request"
            )
        ]

    def __str__(self) -> str:
        return f"Request {self.request_id}, version {self.number}"

    @property
    def folder(self) -> Path:
        """Return the run folder, which explains itself."""
        runs = self.request.folder / "runs"
        return runs / str(self.number)


class TrainingRun(models.Model):
    """One training on one dataset version."""

    version = models.OneToOneField(DatasetVersion, on_delete=models.CASCADE, related_name="run")
    created = models.DateTimeField(default=timezone.now)
    finished = models.DateTimeField(null=True)
    backbone = models.CharField(max_length=32, help_text="The backbone really used.")
    metrics = models.JSONField(null=True, blank=True)
    seconds = models.JSONField(default=dict, blank=True, help_text="phase: seconds")
    notices = models.JSONField(
        default=list, blank=True, help_text="Sentences the person must read."
    )
    comparison = models.JSONField(
        null=True,
        blank=True,
        help_text="Against the version before, on the test images that both have.",
    )

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return f"Training of {self.version}"


class Kind(models.TextChoices):
    DATASET = "dataset", "Dataset"
    CROISSANT = "croissant", "Croissant metadata"
    MODEL = "model", "Model"
    PTH = "pth", "PyTorch weights"
    REPORT = "report", "Report"
    RECIPE = "recipe", "Recipe"


class Artifact(models.Model):
    """A delivered file."""

    version = models.ForeignKey(DatasetVersion, on_delete=models.CASCADE, related_name="artifacts")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    path = models.CharField(max_length=200, help_text="Relative to the data folder.")
    bytes = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["version", "kind"]
        constraints = [
            models.UniqueConstraint(
                fields=["version", "kind"], name="artifact_kind_once_per_version"
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.version}"

    @property
    def file(self) -> Path:
        return Path(settings.DATA_DIR) / self.path


class JobState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(models.Model):
    """One run of one stage of one request. A queued task only notifies; this row is the record."""

    request = models.ForeignKey(ClassifierRequest, on_delete=models.CASCADE, related_name="jobs")
    stage = models.CharField(max_length=12)
    queue = models.CharField(max_length=16)
    state = models.CharField(max_length=10, choices=JobState.choices, default=JobState.QUEUED)
    attempt = models.PositiveSmallIntegerField(default=0)
    fence = models.PositiveIntegerField(
        default=0, help_text="Grows with every claim; an older holder has lost the job."
    )
    owner = models.CharField(max_length=64, blank=True, help_text="The cluster that runs it.")
    lease_until = models.DateTimeField(null=True)
    cancel_requested = models.BooleanField(default=False)
    finish_requested = models.BooleanField(
        default=False, help_text="It is to end early, with what there is."
    )
    progress = models.JSONField(
        default=dict, blank=True, help_text="done, total, message, eta_seconds"
    )
    error = models.TextField(blank=True)
    created = models.DateTimeField(default=timezone.now)
    started = models.DateTimeField(null=True)
    finished = models.DateTimeField(null=True)

    class Meta:
        ordering = ["pk"]
        indexes = [
            models.Index(fields=["queue", "state"]),
            models.Index(fields=["state", "lease_until"]),
        ]

    def __str__(self) -> str:
        return f"Job {self.pk}: {self.stage} of request {self.request_id}"

    @property
    def is_stalled(self) -> bool:
        """Return whether its worker has stopped reporting; the reaper will put it back."""
        if self.state != JobState.RUNNING or self.lease_until is None:
            return False
        return self.lease_until < timezone.now()

    @property
    def ahead(self) -> int:
        """Return how many jobs of the same queue come before this one; 0 once it runs."""
        if self.state != JobState.QUEUED:
            return 0
        unfinished = (JobState.QUEUED, JobState.RUNNING)
        same_queue = Job.objects.filter(queue=self.queue, state__in=unfinished)
        earlier = same_queue.filter(pk__lt=self.pk)
        return earlier.count()

    @property
    def seconds(self) -> float | None:
        """Return how long it took, or has taken so far; None before its start."""
        if self.started is None:
            return None
        end = self.finished or timezone.now()
        return (end - self.started).total_seconds()


class Event(models.Model):
    """One move of a request: who, when, why."""

    request = models.ForeignKey(ClassifierRequest, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    old = models.CharField(max_length=20, blank=True)
    new = models.CharField(max_length=20)
    reason = models.TextField(blank=True)
    actor = models.CharField(
        max_length=64, blank=True, help_text="job:<id>, person, admin name, or empty"
    )

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.old or 'nothing'} → {self.new}"


class MailState(models.TextChoices):
    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    GIVEN_UP = "given_up"


class OutgoingMail(models.Model):
    """One mail of the outbox, written in the transaction that makes it true.

    Its body is emptied after sending.
    """

    key = models.CharField(
        max_length=100, unique=True, help_text="Makes the mail, and its Message-ID, unique."
    )
    request = models.ForeignKey(ClassifierRequest, on_delete=models.CASCADE, related_name="mails")
    to = models.EmailField(max_length=254)
    subject = models.CharField(max_length=200)
    text = models.TextField(blank=True)
    html = models.TextField(blank=True)
    attachments = models.ManyToManyField(Artifact, blank=True)
    state = models.CharField(
        max_length=10, choices=MailState.choices, default=MailState.WAITING, db_index=True
    )
    attempts = models.PositiveSmallIntegerField(default=0)
    not_before = models.DateTimeField(default=timezone.now)
    created = models.DateTimeField(default=timezone.now)
    sent = models.DateTimeField(null=True)
    error = models.TextField(blank=True)

    class Meta:
        ordering = ["pk"]
        verbose_name = "mail"

    def __str__(self) -> str:
        return f"{self.subject} ({self.state})"


class SourceHealth(models.Model):
    """The circuit breaker of one source, shared by all workers.

    Closed means that the source is not asked until ``closed_until``. After that one collection may
    try it (half-open): if it works the breaker forgets, if not it stays closed twice as long as
    before, a day at most.
    """

    LONGEST_SECONDS = 86_400.0
    TRIAL_SECONDS = 1800.0  # a trial that reports nothing for so long is given to another job
    WORKS = ("ok", "partial", "no_results")

    name = models.CharField(max_length=32, unique=True)
    outcome = models.CharField(max_length=20)
    message = models.TextField(blank=True)
    evidence = models.CharField(
        max_length=200, blank=True, help_text="Saved page, relative to the data folder."
    )
    asked = models.DateTimeField(default=timezone.now)
    failures = models.PositiveIntegerField(default=0, help_text="Failures in a row.")
    closed_until = models.DateTimeField(null=True, blank=True)
    trial_job = models.BigIntegerField(
        null=True, blank=True, help_text="The job that may try a closed source."
    )

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "source health"

    def __str__(self) -> str:
        return f"{self.name}: {self.outcome}"

    @property
    def is_closed(self) -> bool:
        return self.closed_until is not None and self.closed_until > timezone.now()

    @classmethod
    def closed_for(cls, job_id: int) -> dict[str, str]:
        """Return the sources that this job must not ask: name -> a sentence that says why.

        A source whose cool-down is over may be tried by one job; it is this one if it comes first.
        """
        closed = {}
        for row in cls.objects.exclude(closed_until=None):
            if row.is_closed:
                if row.trial_job != job_id:
                    until = f"{row.closed_until:%Y-%m-%d %H:%M} UTC"
                    closed[row.name] = f"{row.message} It is not asked again before {until}."
                continue
            trial_end = timezone.now() + timedelta(seconds=cls.TRIAL_SECONDS)
            unchanged = cls.objects.filter(
                pk=row.pk, closed_until=row.closed_until, trial_job=row.trial_job
            )
            if not unchanged.update(closed_until=trial_end, trial_job=job_id):
                message = "Another request is trying it again at this moment."
                closed[row.name] = f"{row.message} {message}"
        return closed

    @classmethod
    def record(
        cls,
        name: str,
        outcome: str,
        message: str,
        *,
        cool_down_seconds: float | None = None,
        evidence: str = "",
    ) -> None:
        """Store what a source answered, and open or close its breaker.

        A source that was not applicable says nothing about its health.

        :param cool_down_seconds: how long to leave it alone after a first failure; each further
            failure in a row doubles it
        :param evidence: a saved page, relative to the data folder
        """
        if outcome == "not_applicable":
            return
        row, _ = cls.objects.get_or_create(name=name, defaults={"outcome": outcome})
        row.outcome = outcome
        row.message = message
        row.evidence = evidence
        row.asked = timezone.now()
        row.trial_job = None
        row.closed_until = None
        if outcome in cls.WORKS:
            row.failures = 0
        elif cool_down_seconds:  # without it the words of one request failed, not the source
            row.failures += 1
            doublings = min(row.failures - 1, 20)
            pause = min(cool_down_seconds * 2**doublings, cls.LONGEST_SECONDS)
            row.closed_until = row.asked + timedelta(seconds=pause)
        row.save()


class BrowserTurn(models.Model):
    """The browser lock: one job at a time per installation uses the browser.

    It is held by a lease, as a job is.
    """

    name = models.CharField(max_length=16, unique=True, default="browser")
    job = models.BigIntegerField(null=True)
    fence = models.PositiveIntegerField(default=0)
    until = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["name"]
        verbose_name = "browser lock"

    def __str__(self) -> str:
        return f"{self.name}: job {self.job}"

    @classmethod
    def acquire(cls, job: int, fence: int, until: datetime) -> bool:
        """Take or renew the lock; return False while another living job has it."""
        cls.objects.get_or_create(name="browser")
        is_own = models.Q(job=job, fence=fence)
        is_free = models.Q(job=None)
        has_run_out = models.Q(until__lt=timezone.now())
        rows = cls.objects.filter(is_own | is_free | has_run_out)
        taken = rows.update(job=job, fence=fence, until=until)
        return taken == 1

    @classmethod
    def release(cls, job: int, fence: int) -> None:
        cls.objects.filter(job=job, fence=fence).update(job=None)


class TakenDown(models.Model):
    """An image that must not come back: by the digest of its normalized address or its bytes."""

    class What(models.TextChoices):
        URL = "url", "Address"
        SHA256 = "sha256", "Content"

    what = models.CharField(max_length=8, choices=What.choices)
    digest = models.CharField(max_length=64)
    reason = models.TextField(blank=True)
    at = models.DateTimeField(default=timezone.now)
    finished = models.DateTimeField(
        null=True, help_text="When it was gone everywhere; null: that is still to be done."
    )

    class Meta:
        ordering = ["-at"]
        verbose_name = "blocked picture"
        constraints = [models.UniqueConstraint(fields=["what", "digest"], name="taken_down_once")]

    def __str__(self) -> str:
        return f"{self.get_what_display()} {self.digest[:16]}"

    @classmethod
    def keep_out(cls, what: str, digest: str, reason: str = "") -> None:
        """Refuse an address or a content from now on; what is here of it is yet to be removed."""
        cls.objects.get_or_create(what=what, digest=digest, defaults={"reason": reason})

    @classmethod
    def digests(cls) -> frozenset[str]:
        """Return what must be kept out: digests of normalized addresses, and of contents."""
        return frozenset(cls.objects.values_list("digest", flat=True))


class WorkerBeat(models.Model):
    """The sign of life of one queue cluster, and the flag by which `up` asks it to stop."""

    cluster = models.CharField(max_length=64, unique=True)
    queue = models.CharField(max_length=16)
    at = models.DateTimeField(default=timezone.now)
    busy_until = models.DateTimeField(
        null=True, help_text="It does something long and known; silence is no bad sign."
    )
    stop = models.BooleanField(default=False)

    class Meta:
        ordering = ["queue", "cluster"]
        verbose_name = "worker"

    def __str__(self) -> str:
        return f"{self.queue} at {self.at:%H:%M:%S}"

    @property
    def is_fresh(self) -> bool:
        now = timezone.now()
        if self.busy_until is not None and self.busy_until > now:
            return True
        silence = now - self.at
        limit = timedelta(seconds=5 * settings.BEAT_SECONDS)
        return silence < limit
