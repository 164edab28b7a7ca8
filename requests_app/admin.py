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
    MailState,
    OutgoingMail,
    SourceHealth,
    Status,
    TakenDown,
    TrainingRun,
    WorkerBeat,
)

admin.site.site_header = "Picaisso"
admin.site.site_title = "Picaisso"
admin.site.index_title = "Dashboard"
admin.site.index_template = "admin/dashboard.html"

# Whoever may edit a schedule may name any function with any arguments, a shell among them. Nobody
# needs to: the schedules are made by the site itself, and what the queue does is told by the Job
# rows.
for queue_model in (Schedule, Failure, Success, OrmQ):
    if admin.site.is_registered(queue_model):
        admin.site.unregister(queue_model)


def link_to(row: Model | None, text: str = "") -> str:
    """A link to another row's page in the admin; a dash for none."""
    if row is None:
        return "–"
    meta = row._meta
    url = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])
    return format_html('<a href="{}">{}</a>', url, text or str(row))


def acting(http: HttpRequest) -> str:
    """Who presses the button, for the Event row."""
    return f"admin:{cast(AbstractBaseUser, http.user).get_username()}"[:64]


class Records:
    """Rows that the system writes: to look at, never to add, edit or delete by hand."""

    def has_add_permission(self, http: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, http: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, http: HttpRequest, obj: Model | None = None) -> bool:
        return False


class RecordAdmin(Records, admin.ModelAdmin):
    list_per_page = 50
    show_full_result_count = False

    def has_operate_permission(self, http: HttpRequest) -> bool:
        """May press the buttons of this list: whoever has Django's "change" permission for the
        table.
        """
        meta = self.model._meta
        return http.user.has_perm(f"{meta.app_label}.change_{meta.model_name}")


class RecordInline(Records, admin.TabularInline):
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

    def get_queryset(self, http: HttpRequest) -> QuerySet[ClassifierRequest]:
        return super().get_queryset(http).prefetch_related("classes")

    @admin.display(description="Classes")
    def class_names(self, row: ClassifierRequest) -> str:
        return ", ".join(each.name for each in row.classes.all())

    @admin.display(description="Page")
    def page(self, row: ClassifierRequest) -> str:
        return format_html('<a href="{}">open</a>', row.get_absolute_url())

    @admin.action(description="Cancel the selected requests", permissions=["operate"])
    def cancel_selected(self, http: HttpRequest, rows: QuerySet[ClassifierRequest]) -> None:
        done = [row for row in rows if lifecycle.cancel(row, actor=acting(http))]
        self._report(http, done, "cancelled", of=len(rows))

    @admin.action(description="Start the selected requests again", permissions=["operate"])
    def retry_selected(self, http: HttpRequest, rows: QuerySet[ClassifierRequest]) -> None:
        started = [
            row for row in rows if row.jobs.exists() and lifecycle.retry(row, actor=acting(http))
        ]
        self._report(http, started, "started again", of=len(rows))

    @admin.action(
        description="Delete the selected requests' pictures, files and address",
        permissions=["operate"],
    )
    def delete_everything(self, http: HttpRequest, rows: QuerySet[ClassifierRequest]) -> None:
        deleted = [
            row for row in rows if lifecycle.delete(row, reason=f"deleted by {acting(http)}")
        ]
        self._report(http, deleted, "deleted", of=len(rows))

    def _report(self, http: HttpRequest, rows: list[ClassifierRequest], what: str, of: int) -> None:
        """Log what was done, and say so; what could not be done is said too."""
        for row in rows:
            self.log_change(http, row, f"{what} in the dashboard")
        if rows:
            self.message_user(
                http, f"{phrases.counted(len(rows), 'request')} {what}.", messages.SUCCESS
            )
        if left := of - len(rows):
            sentence = f"{phrases.counted(left, 'request')} could not be {what}."
            self.message_user(http, sentence, messages.WARNING)


@admin.register(ImageClass)
class ImageClassAdmin(RecordAdmin):
    list_display = ("name", "query", "request_link", "found", "kept", "left_out")
    list_filter = ("request__status", "request__created")
    search_fields = ("name", "query", "=request__id")
    list_select_related = ("request",)
    readonly_fields = ("request_link",)

    @admin.display(description="Request", ordering="request")
    def request_link(self, row: ImageClass) -> str:
        return link_to(row.request, f"Request {row.request_id}")

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
        return format_html(
            '<img src="{}" alt="" width="56" height="56" class="picture" loading="lazy">', url
        )

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
class DatasetVersionAdmin(RecordAdmin):
    list_display = ("__str__", "request_link", "number", "images", "created")
    list_filter = ("created",)
    search_fields = ("=request__id", "manifest_sha256")
    date_hierarchy = "created"
    list_select_related = ("request",)
    readonly_fields = ("request_link",)
    inlines = (RunInline, ArtifactInline)

    @admin.display(description="Request", ordering="request")
    def request_link(self, row: DatasetVersion) -> str:
        return link_to(row.request, f"Request {row.request_id}")


@admin.register(TrainingRun)
class TrainingRunAdmin(RecordAdmin):
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
    readonly_fields = ("version_link", "accuracy", "interval", "took")

    @admin.display(description="Version", ordering="version")
    def version_link(self, row: TrainingRun) -> str:
        return link_to(row.version)

    @admin.display(description="Accuracy", ordering="metrics__accuracy")
    def accuracy(self, row: TrainingRun) -> str:
        return phrases.percent(row.metrics["accuracy"]) if row.metrics else "–"

    @admin.display(description="95 % interval")
    def interval(self, row: TrainingRun) -> str:
        return phrases.interval(row.metrics["interval"]) if row.metrics else "–"

    @admin.display(description="Took")
    def took(self, row: TrainingRun) -> str:
        return phrases.duration(sum(row.seconds.values())) if row.seconds else "–"


@admin.register(Artifact)
class ArtifactAdmin(RecordAdmin):
    list_display = ("__str__", "kind", "version_link", "size", "sha256", "created")
    list_filter = ("kind", "created")
    search_fields = ("=sha256", "path", "=version__request__id")
    date_hierarchy = "created"
    list_select_related = ("version__request",)
    readonly_fields = ("version_link", "size")

    @admin.display(description="Version", ordering="version")
    def version_link(self, row: Artifact) -> str:
        return link_to(row.version)

    @admin.display(description="Size", ordering="bytes")
    def size(self, row: Artifact) -> str:
        return filesizeformat(row.bytes)


@admin.register(Job)
class JobAdmin(RecordAdmin):
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

    @admin.display(description="Request", ordering="request")
    def request_link(self, row: Job) -> str:
        return link_to(row.request, f"Request {row.request_id}")

    @admin.display(description="Progress")
    def progress_percent(self, row: Job) -> str:
        total = row.progress.get("total")
        return phrases.percent((row.progress.get("done") or 0) / total) if total else "–"

    @admin.display(description="Stalled", boolean=True)
    def stalled(self, row: Job) -> bool:
        return row.is_stalled

    @admin.display(description="Took")
    def took(self, row: Job) -> str:
        return phrases.duration(row.seconds) if row.seconds is not None else "–"


@admin.register(Event)
class EventAdmin(RecordAdmin):
    list_display = ("at", "request_link", "old", "new", "reason", "actor")
    list_filter = ("new", "at")
    search_fields = ("=request__id", "reason", "actor")
    date_hierarchy = "at"
    list_select_related = ("request",)
    readonly_fields = ("request_link",)

    @admin.display(description="Request", ordering="request")
    def request_link(self, row: Event) -> str:
        return link_to(row.request, f"Request {row.request_id}")


@admin.register(OutgoingMail)
class OutgoingMailAdmin(RecordAdmin):
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
    # The texts hold the confirmation link, which proves that the reader owns the mailbox: nobody
    # else's to see.
    exclude = ("text", "html")
    readonly_fields = ("request_link",)
    actions = ("send_again",)

    @admin.display(description="Request", ordering="request")
    def request_link(self, row: OutgoingMail) -> str:
        return link_to(row.request, f"Request {row.request_id}")

    @admin.action(description="Try again to send those given up", permissions=["operate"])
    def send_again(self, http: HttpRequest, rows: QuerySet[OutgoingMail]) -> None:
        now = timezone.now()
        # Created anew: what is older than a day is given up at its next failure.
        number = rows.filter(state=MailState.GIVEN_UP).update(
            state=MailState.WAITING, not_before=now, created=now, attempts=0
        )
        self.message_user(
            http, f"{phrases.counted(number, 'mail')} will be tried again.", messages.SUCCESS
        )


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
    def reopen(self, http: HttpRequest, rows: QuerySet[SourceHealth]) -> None:
        number = rows.update(closed_until=None, trial_job=None, failures=0)
        self.message_user(
            http, f"{phrases.counted(number, 'source')} opened again.", messages.SUCCESS
        )


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
    """(title, outcome in words, health) of each source in use, in the order of asking, then of
    others once asked.
    """
    healths = {health.name: health for health in SourceHealth.objects.all()}
    names = dict.fromkeys([*settings.SOURCES, *healths])
    return [
        (
            phrases.source_title(name),
            phrases.outcome(healths[name].outcome) if name in healths else "not asked yet",
            healths.get(name),
        )
        for name in names
    ]


def dashboard() -> dict[str, Any]:
    """What the first page of the dashboard shows above the tables."""
    by_status = dict(
        ClassifierRequest.objects.order_by().values_list("status").annotate(Count("pk"))
    )
    return {
        "requests": [
            (code, label, by_status[code]) for code, label in Status.choices if code in by_status
        ],
        "jobs": Job.objects.filter(state__in=("queued", "running")).select_related("request")[:20],
        "beats": WorkerBeat.objects.all(),
        "sources": source_lines(),
        "mails": OutgoingMail.objects.exclude(state=MailState.SENT).count(),
    }
