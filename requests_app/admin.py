"""The dashboard: every table with useful lists and filters.

Rows are records of the system, so nothing is added or edited by hand.
"""

from typing import Any, cast

import django_q.admin  # noqa: F401  (registers its models, so that they can be unregistered below)
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.models import AbstractBaseUser
from django.db.models import Count, Model, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.text import Truncator
from django_q.models import Failure, OrmQ, Schedule, Success

from requests_app import lifecycle, phrases
from requests_app.models import (
    Artifact,
    BrowserTurn,
    ClassifierRequest,
    DatasetVersion,
    Event,
    ImageClass,
    ImageState,
    ImageUrl,
    Job,
    JobState,
    MailState,
    OutgoingMail,
    SourceHealth,
    Status,
    TakenDown,
    TrainingRun,
    WorkerBeat,
)
from training.earlier_metrics import completed

admin.site.site_header = "Picaisso"
admin.site.site_title = "Picaisso"
admin.site.index_title = "Dashboard"
admin.site.index_template = "admin/dashboard.html"

# Whoever may edit a schedule may name any function with any arguments, a shell among them. Nobody
# needs to: the site makes its schedules itself, and the Job rows say what the queue does.
for queue_model in (Schedule, Failure, Success, OrmQ):
    if admin.site.is_registered(queue_model):
        admin.site.unregister(queue_model)


def link_to(row: Model | None, text: str = "") -> str:
    """Return a link to another row's page in the admin, a dash for none."""
    if row is None:
        return "–"
    meta = row._meta
    url = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])
    return format_html('<a href="{}">{}</a>', url, text or str(row))


def actor_of(request: HttpRequest) -> str:
    """Return who presses the button, as an Event row names them."""
    user = cast(AbstractBaseUser, request.user)
    return f"admin:{user.get_username()}"[:64]


class ReadOnly:
    """For rows that the system writes: nobody adds, edits or deletes them by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class RecordAdmin(ReadOnly, admin.ModelAdmin):
    list_per_page = 50
    show_full_result_count = False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Allow the actions of this list to whoever has Django's "change" permission for it."""
        meta = self.model._meta
        permission = f"{meta.app_label}.change_{meta.model_name}"
        return request.user.has_perm(permission)


class RequestLinkMixin:
    """For tables whose rows belong to a request."""

    @admin.display(description="Request", ordering="request")
    def request_link(self, row: Any) -> str:
        return link_to(row.request, f"Request {row.request_id}")


class VersionLinkMixin:
    """For tables whose rows belong to a dataset version."""

    @admin.display(description="Version", ordering="version")
    def version_link(self, row: Any) -> str:
        return link_to(row.version)


class RecordInline(ReadOnly, admin.TabularInline):
    extra = 0
    show_change_link = True


class ClassInline(RecordInline):
    model = ImageClass
    fields = ("number", "name", "query", "found", "kept", "rejected", "outcomes")


class JobInline(RecordInline):
    model = Job
    fields = ("stage", "state", "attempt", "created", "started", "finished", "owner", "error")


class VersionInline(RecordInline):
    model = DatasetVersion
    fields = ("number", "created", "images", "manifest_sha256")


class EventInline(RecordInline):
    model = Event
    fields = ("at", "old", "new", "reason", "actor")
    show_change_link = False


@admin.register(ClassifierRequest)
class ClassifierRequestAdmin(RecordAdmin):
    list_display = (
        "pk",
        "class_names",
        "status",
        "email",
        "images_per_class",
        "backbone",
        "created",
        "moved",
        "page",
    )
    list_display_links = ("pk", "class_names")
    list_filter = ("status", "backbone", "license", "accept_fewer", "created")
    search_fields = ("=id", "email", "classes__name", "classes__query")
    date_hierarchy = "created"
    inlines = (ClassInline, JobInline, VersionInline, EventInline)
    exclude = ("token_sha256",)
    readonly_fields = ("page",)
    actions = ("cancel_selected", "retry_selected", "delete_everything")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ClassifierRequest]:
        return super().get_queryset(request).prefetch_related("classes")

    @admin.display(description="Classes")
    def class_names(self, row: ClassifierRequest) -> str:
        names = [image_class.name for image_class in row.classes.all()]
        return ", ".join(names)

    @admin.display(description="Page")
    def page(self, row: ClassifierRequest) -> str:
        return format_html('<a href="{}">open</a>', row.get_absolute_url())

    @admin.action(description="Cancel the selected requests", permissions=["operate"])
    def cancel_selected(self, request: HttpRequest, rows: QuerySet[ClassifierRequest]) -> None:
        actor = actor_of(request)
        done = [row for row in rows if lifecycle.cancel(row, actor=actor)]
        self._report(request, done, "cancelled", total=len(rows))

    @admin.action(description="Start the selected requests again", permissions=["operate"])
    def retry_selected(self, request: HttpRequest, rows: QuerySet[ClassifierRequest]) -> None:
        actor = actor_of(request)
        started = []
        for row in rows:
            if row.jobs.exists() and lifecycle.retry(row, actor=actor):
                started.append(row)
        self._report(request, started, "started again", total=len(rows))

    @admin.action(
        description="Delete the selected requests' pictures, files and address",
        permissions=["operate"],
    )
    def delete_everything(self, request: HttpRequest, rows: QuerySet[ClassifierRequest]) -> None:
        reason = f"deleted by {actor_of(request)}"
        deleted = [row for row in rows if lifecycle.delete(row, reason=reason)]
        self._report(request, deleted, "deleted", total=len(rows))

    def _report(
        self, request: HttpRequest, done: list[ClassifierRequest], what: str, *, total: int
    ) -> None:
        """Log what was done, and show how many could be done and how many could not."""
        for row in done:
            self.log_change(request, row, f"{what} in the dashboard")
        if done:
            count = phrases.counted(len(done), "request")
            self.message_user(request, f"{count} {what}.", messages.SUCCESS)
        if len(done) < total:
            count = phrases.counted(total - len(done), "request")
            self.message_user(request, f"{count} could not be {what}.", messages.WARNING)


@admin.register(ImageClass)
class ImageClassAdmin(RequestLinkMixin, RecordAdmin):
    list_display = ("name", "query", "request_link", "found", "kept", "left_out")
    list_filter = ("request__status", "request__created")
    search_fields = ("name", "query", "=request__id")
    list_select_related = ("request",)
    readonly_fields = ("request_link",)

    @admin.display(description="Left out")
    def left_out(self, row: ImageClass) -> str:
        return phrases.rejections(row.rejected) or "–"


@admin.register(ImageUrl)
class ImageUrlAdmin(RecordAdmin):
    list_display = (
        "picture",
        "class_link",
        "source",
        "state",
        "reason",
        "license",
        "split",
        "address",
        "fetched_at",
    )
    list_display_links = ("address",)
    list_filter = ("state", "reason", "source", "license", "license_basis", "split")
    search_fields = ("image_url", "page_url", "title", "creator", "=sha256", "image_class__name")
    date_hierarchy = "fetched_at"
    list_select_related = ("image_class__request",)
    readonly_fields = ("picture", "class_link")

    @admin.display(description="Picture")
    def picture(self, row: ImageUrl) -> str:
        if row.state != ImageState.KEPT:
            return "–"
        url = reverse("thumbnail", args=[row.image_class.request.token, row.pk])
        image = '<img src="{}" alt="" width="56" height="56" class="picture" loading="lazy">'
        return format_html(image, url)

    @admin.display(description="Address", ordering="image_url")
    def address(self, row: ImageUrl) -> str:
        return Truncator(row.image_url).chars(60)

    @admin.display(description="Class", ordering="image_class")
    def class_link(self, row: ImageUrl) -> str:
        return link_to(row.image_class)


class RunInline(RecordInline):
    model = TrainingRun
    fields = ("backbone", "created", "finished", "notices")


class ArtifactInline(RecordInline):
    model = Artifact
    fields = ("kind", "path", "bytes", "sha256", "created")


@admin.register(DatasetVersion)
class DatasetVersionAdmin(RequestLinkMixin, RecordAdmin):
    list_display = ("__str__", "request_link", "number", "images", "created")
    list_filter = ("created",)
    search_fields = ("=request__id", "manifest_sha256")
    date_hierarchy = "created"
    list_select_related = ("request",)
    readonly_fields = ("request_link",)
    inlines = (RunInline, ArtifactInline)


@admin.register(TrainingRun)
class TrainingRunAdmin(VersionLinkMixin, RecordAdmin):
    list_display = (
        "__str__",
        "version_link",
        "backbone",
        "accuracy",
        "interval",
        "took",
        "finished",
    )
    list_filter = ("backbone", "finished")
    search_fields = ("=version__request__id",)
    date_hierarchy = "created"
    list_select_related = ("version__request",)
    readonly_fields = ("version_link", "verdict", "accuracy", "interval", "took")

    @admin.display(description="Accuracy", ordering="metrics__headline__value")
    def accuracy(self, row: TrainingRun) -> str:
        if not row.metrics:
            return "–"
        headline = completed(row.metrics)["headline"]
        counts = phrases.headline_counts(row.metrics)
        return f"{phrases.percent(headline['value'])} ({counts})"

    @admin.display(description="95 % interval")
    def interval(self, row: TrainingRun) -> str:
        if not row.metrics:
            return "–"
        headline = completed(row.metrics)["headline"]
        return phrases.interval(headline["interval"])

    @admin.display(description="Verdict")
    def verdict(self, row: TrainingRun) -> str:
        if not row.metrics:
            return "–"
        return phrases.verdict(row.metrics)

    @admin.display(description="Took")
    def took(self, row: TrainingRun) -> str:
        if not row.seconds:
            return "–"
        total = sum(row.seconds.values())
        return phrases.duration(total)


@admin.register(Artifact)
class ArtifactAdmin(VersionLinkMixin, RecordAdmin):
    list_display = ("__str__", "kind", "version_link", "size", "sha256", "created")
    list_filter = ("kind", "created")
    search_fields = ("=sha256", "path", "=version__request__id")
    date_hierarchy = "created"
    list_select_related = ("version__request",)
    readonly_fields = ("version_link", "size")

    @admin.display(description="Size", ordering="bytes")
    def size(self, row: Artifact) -> str:
        return filesizeformat(row.bytes)


@admin.register(Job)
class JobAdmin(RequestLinkMixin, RecordAdmin):
    list_display = (
        "pk",
        "request_link",
        "stage",
        "queue",
        "state",
        "progress_percent",
        "attempt",
        "stalled",
        "took",
        "created",
    )
    list_filter = ("state", "stage", "queue", "created")
    search_fields = ("=id", "=request__id", "owner", "error")
    date_hierarchy = "created"
    list_select_related = ("request",)
    readonly_fields = ("request_link", "progress_percent", "stalled", "took")

    @admin.display(description="Progress")
    def progress_percent(self, row: Job) -> str:
        total = row.progress.get("total")
        if not total:
            return "–"
        done = row.progress.get("done") or 0
        return phrases.percent(done / total)

    @admin.display(description="Stalled", boolean=True)
    def stalled(self, row: Job) -> bool:
        return row.is_stalled

    @admin.display(description="Took")
    def took(self, row: Job) -> str:
        if row.seconds is None:
            return "–"
        return phrases.duration(row.seconds)


@admin.register(Event)
class EventAdmin(RequestLinkMixin, RecordAdmin):
    list_display = ("at", "request_link", "old", "new", "reason", "actor")
    list_filter = ("new", "at")
    search_fields = ("=request__id", "reason", "actor")
    date_hierarchy = "at"
    list_select_related = ("request",)
    readonly_fields = ("request_link",)


@admin.register(OutgoingMail)
class OutgoingMailAdmin(RequestLinkMixin, RecordAdmin):
    list_display = (
        "subject",
        "to",
        "request_link",
        "state",
        "attempts",
        "created",
        "sent",
        "error",
    )
    list_filter = ("state", "created")
    search_fields = ("to", "subject", "key", "=request__id")
    date_hierarchy = "created"
    list_select_related = ("request",)
    # The texts hold the confirmation link, which proves that its reader owns the mailbox.
    exclude = ("text", "html")
    readonly_fields = ("request_link",)
    actions = ("send_again",)

    @admin.action(description="Try again to send those given up", permissions=["operate"])
    def send_again(self, request: HttpRequest, rows: QuerySet[OutgoingMail]) -> None:
        now = timezone.now()
        given_up = rows.filter(state=MailState.GIVEN_UP)
        # A new creation time: a mail older than a day is given up at its next failure.
        updated = given_up.update(state=MailState.WAITING, not_before=now, created=now, attempts=0)
        count = phrases.counted(updated, "mail")
        self.message_user(request, f"{count} will be tried again.", messages.SUCCESS)


@admin.register(SourceHealth)
class SourceHealthAdmin(RecordAdmin):
    list_display = ("name", "outcome", "message", "asked", "failures", "closed_until", "open_now")
    list_filter = ("outcome",)
    search_fields = ("name", "message")
    readonly_fields = ("open_now",)
    actions = ("reopen",)

    @admin.display(description="Open", boolean=True)
    def open_now(self, row: SourceHealth) -> bool:
        return not row.is_closed

    @admin.action(description="Open the selected sources again", permissions=["operate"])
    def reopen(self, request: HttpRequest, rows: QuerySet[SourceHealth]) -> None:
        updated = rows.update(closed_until=None, trial_job=None, failures=0)
        count = phrases.counted(updated, "source")
        self.message_user(request, f"{count} opened again.", messages.SUCCESS)


@admin.register(BrowserTurn)
class BrowserTurnAdmin(RecordAdmin):
    list_display = ("name", "job", "fence", "until")
    search_fields = ("name", "=job")


@admin.register(TakenDown)
class TakenDownAdmin(RecordAdmin):
    list_display = ("what", "digest", "reason", "at")
    list_filter = ("what",)
    search_fields = ("digest", "reason")
    date_hierarchy = "at"


@admin.register(WorkerBeat)
class WorkerBeatAdmin(RecordAdmin):
    list_display = ("cluster", "queue", "at", "alive", "stop")
    list_filter = ("queue", "stop")
    search_fields = ("cluster",)
    readonly_fields = ("alive",)

    @admin.display(description="Alive", boolean=True)
    def alive(self, row: WorkerBeat) -> bool:
        return row.is_fresh


def source_lines() -> list[tuple[str, str, SourceHealth | None]]:
    """Return (title, outcome in words, health) of each source.

    First those in use, in the order of asking, then others that were asked once.
    """
    healths = {health.name: health for health in SourceHealth.objects.all()}
    lines = []
    for name in dict.fromkeys([*settings.SOURCES, *healths]):
        health = healths.get(name)
        outcome = phrases.outcome(health.outcome) if health else "not asked yet"
        lines.append((phrases.source_title(name), outcome, health))
    return lines


def request_counts() -> list[tuple[str, str, int]]:
    """Return (status, label, number of requests) of each status that occurs."""
    rows = ClassifierRequest.objects.order_by().values_list("status").annotate(Count("pk"))
    number_by_status = dict(rows)
    counts = []
    for status, label in Status.choices:
        if status in number_by_status:
            counts.append((status, label, number_by_status[status]))
    return counts


def dashboard() -> dict[str, Any]:
    """Return what the first page of the dashboard shows above the tables."""
    open_jobs = Job.objects.filter(state__in=(JobState.QUEUED, JobState.RUNNING))
    return {
        "requests": request_counts(),
        "jobs": open_jobs.select_related("request")[:20],
        "beats": WorkerBeat.objects.all(),
        "sources": source_lines(),
        "mails": OutgoingMail.objects.exclude(state=MailState.SENT).count(),
    }
