"""The dashboard: every table with useful lists and filters.

Rows are records of the system, so nothing is added or edited by hand.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import django_q.admin  # noqa: F401  (registers its models, so that they can be unregistered below)
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.dateformat import format as date_format
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator
from django_q.models import Failure, OrmQ, Schedule, Success

from requests_app import dashboard, lifecycle, phrases, takedowns
from requests_app.delivery import thumbnails
from requests_app.models import (
    Allowance,
    Artifact,
    BrowserTurn,
    ClassifierRequest,
    DatasetVersion,
    Decision,
    Event,
    IdempotencyKey,
    ImageClass,
    ImageState,
    ImageUrl,
    Job,
    LinksWish,
    MailState,
    OutgoingMail,
    OwnCheck,
    SourceHealth,
    TakenDown,
    TrainingRun,
    WorkerBeat,
)
from training.earlier_metrics import completed

admin.site.site_header = "Picaisso"
admin.site.site_title = "Picaisso"
admin.site.index_title = "Dashboard"
admin.site.index_template = "admin/dashboard.html"

MOMENT = "j M Y, H:i"  # in UTC
DIGITS_SHOWN = 17  # of a digest in a list; its own page has all of it
PICTURES_SHOWN = 12  # on the page of a request
SHOW_IMAGES = ("imageurl", "classifierrequest")  # whoever may look at one of these sees images
TAKE_DOWN_AT_ONCE = 20  # each rebuilds the files of the requests that have the picture

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


def picture_of(row: ImageUrl, side: int) -> str:
    """Return a small picture that links to its row, a dash for one that is not kept."""
    if row.state != ImageState.KEPT:
        return "–"
    page = reverse("admin:requests_app_imageurl_change", args=[row.pk])
    # Not the page's own address of it: that is the permission to change and delete the request.
    thumbnail = reverse("admin:requests_app_imageurl_thumbnail", args=[row.pk])
    html = (
        '<a href="{}"><img src="{}" alt="Picture {}" width="{}" height="{}" class="picture"'
        ' loading="lazy"></a>'
    )
    return format_html(html, page, thumbnail, row.pk, side, side)


def listed(lines: Sequence[str]) -> str:
    """Return lines as a list, a dash for none."""
    if not lines:
        return "–"
    items = format_html_join("", "<li>{}</li>", ((line,) for line in lines))
    return format_html('<ul class="lines">{}</ul>', items)


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
    view_on_site = False
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


class NamedValuesFilter(admin.AllValuesFieldListFilter):
    """A filter by the values of a column, in which the empty one has a name."""

    def choices(self, changelist: Any) -> Iterator[Any]:
        for choice in super().choices(changelist):
            name = choice["display"] or "none"
            yield {**choice, "display": name}


class RecordInline(ReadOnly, admin.TabularInline):
    extra = 0
    show_change_link = True


class ClassInline(RecordInline):
    model = ImageClass
    fields = ("number", "name", "query", "found", "kept", "left_out", "sources")
    readonly_fields = ("left_out", "sources")

    @admin.display(description="Left out")
    def left_out(self, row: ImageClass) -> str:
        return phrases.rejections(row.rejected) or "–"

    @admin.display(description="Sources")
    def sources(self, row: ImageClass) -> str:
        return listed(dashboard.outcomes(row.outcomes))


class JobInline(RecordInline):
    model = Job
    fields = ("stage", "state", "attempt", "created", "started", "finished", "owner", "error")
    ordering = ("-pk",)


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
        "situation",
        "email",
        "made",
        "since",
        "page",
    )
    list_display_links = ("pk", "class_names")
    list_filter = ("status", "backbone", "license", "accept_fewer", "created")
    search_fields = ("=id", "email", "classes__name", "classes__query", "kind")
    date_hierarchy = "created"
    inlines = (ClassInline, JobInline, VersionInline, EventInline)
    fields = (
        "page",
        "status",
        "problem",
        "class_names",
        "wishes",
        "kind_note",
        "email",
        "created",
        "moved",
        "figures",
        "pictures",
        "log",
    )
    readonly_fields = fields
    actions = ("cancel_selected", "retry_selected", "collect_selected", "delete_everything")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ClassifierRequest]:
        return super().get_queryset(request).prefetch_related("classes")

    @admin.display(description="Classes")
    def class_names(self, row: ClassifierRequest) -> str:
        names = [image_class.name for image_class in row.classes.all()]
        return Truncator(", ".join(names)).chars(120)

    @admin.display(description="Problem")
    def problem(self, row: ClassifierRequest) -> str:
        return dashboard.problem(row) or "–"

    @admin.display(description="Status", ordering="status")
    def situation(self, row: ClassifierRequest) -> str:
        problem = Truncator(dashboard.problem(row)).chars(120)
        status = row.get_status_display()
        if not problem:
            return status
        html = '<strong class="poor">{}</strong><br>{}'
        return format_html(html, status, problem)

    @admin.display(description="Created", ordering="created")
    def made(self, row: ClassifierRequest) -> str:
        return date_format(row.created, MOMENT)

    @admin.display(description="Since", ordering="moved")
    def since(self, row: ClassifierRequest) -> str:
        return date_format(row.moved, MOMENT)

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return self._without_page(request, super().get_list_display(request))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return self._without_page(request, super().get_fields(request, obj))

    def _without_page(self, request: HttpRequest, names: Sequence[Any]) -> list[Any]:
        """Leave out the link to the page for those who may only look: with it all can be done."""
        if self.has_operate_permission(request):
            return list(names)
        return [name for name in names if name != "page"]

    @admin.display(description="Page")
    def page(self, row: ClassifierRequest) -> str:
        return format_html('<a href="{}">open {}</a>', row.get_absolute_url(), row.pk)

    @admin.display(description="Asked for")
    def wishes(self, row: ClassifierRequest) -> str:
        return dashboard.wishes(row)

    @admin.display(description="Searched for as")
    def kind_note(self, row: ClassifierRequest) -> str:
        return str(row.kind_found.get("sentence", "")) or "the plain names"

    @admin.display(description="Result")
    def figures(self, row: ClassifierRequest) -> str:
        runs = TrainingRun.objects.filter(version__request=row, finished__isnull=False)
        newest = runs.order_by("-version__number").first()
        if newest is None or not newest.metrics:
            return "–"
        return phrases.verdict(newest.metrics)

    @admin.display(description="Pictures")
    def pictures(self, row: ClassifierRequest) -> str:
        kept = ImageUrl.objects.filter(image_class__request=row, state=ImageState.KEPT)
        shown = kept.order_by("-pk")[:PICTURES_SHOWN]
        small = [(picture_of(image, 72),) for image in shown]
        if not small:
            return "–"
        rows = reverse("admin:requests_app_imageurl_changelist")
        query = f"?image_class__request__id__exact={row.pk}"
        strip = format_html_join(" ", "{}", small)
        return format_html('{}<br><a href="{}{}">all of its pictures</a>', strip, rows, query)

    @admin.display(description="End of the log")
    def log(self, row: ClassifierRequest) -> str:
        tail = dashboard.log_tail(row)
        return format_html('<pre class="log" tabindex="0">{}</pre>', tail) if tail else "–"

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
        description="Search and download the selected requests' pictures again",
        permissions=["operate"],
    )
    def collect_selected(self, request: HttpRequest, rows: QuerySet[ClassifierRequest]) -> None:
        actor = actor_of(request)
        started = [row for row in rows if lifecycle.collect_again(row, actor=actor)]
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
    exclude = ("request", "rejected", "outcomes")
    list_display = ("name", "query", "request_link", "found", "kept", "left_out")
    list_filter = ("request__status", "request__created")
    search_fields = ("name", "query", "=request__id")
    list_select_related = ("request",)
    readonly_fields = ("request_link", "left_out", "sources")

    @admin.display(description="Left out")
    def left_out(self, row: ImageClass) -> str:
        return phrases.rejections(row.rejected) or "–"

    @admin.display(description="Sources")
    def sources(self, row: ImageClass) -> str:
        return listed(dashboard.outcomes(row.outcomes))


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
    list_filter = (
        "state",
        ("reason", NamedValuesFilter),
        "source",
        ("license", NamedValuesFilter),
        ("license_basis", NamedValuesFilter),
        ("split", NamedValuesFilter),
    )
    exclude = ("image_class",)
    search_fields = ("image_url", "page_url", "title", "creator", "=sha256", "image_class__name")
    date_hierarchy = "fetched_at"
    list_select_related = ("image_class__request",)
    readonly_fields = ("picture", "class_link")
    actions = ("take_down",)

    @admin.display(description="Picture")
    def picture(self, row: ImageUrl) -> str:
        return picture_of(row, 56)

    @admin.display(description="Address", ordering="image_url")
    def address(self, row: ImageUrl) -> str:
        return Truncator(row.image_url).chars(60)

    @admin.display(description="Class", ordering="image_class")
    def class_link(self, row: ImageUrl) -> str:
        return link_to(row.image_class)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.thumbnail)
        own = path("<int:pk>/thumbnail.jpg", view, name="requests_app_imageurl_thumbnail")
        return [own, *super().get_urls()]

    def thumbnail(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Send a small copy of an image to staff who may look at this list."""
        user = request.user
        if not any(user.has_perm(f"{self.opts.app_label}.view_{name}") for name in SHOW_IMAGES):
            raise PermissionDenied
        found = ImageUrl.objects.filter(pk=pk).exclude(state=ImageState.REJECTED)
        image = found.select_related("image_class__request").first()
        small = thumbnails.thumbnail(image) if image else None
        if small is None:
            raise Http404
        headers = {"Cache-Control": "private, max-age=3600"}
        return FileResponse(small.open("rb"), content_type="image/jpeg", headers=headers)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allow the link from a request to its pictures."""
        if lookup == "image_class__request__id__exact":
            return True
        return super().lookup_allowed(lookup, value, cast(HttpRequest, request))

    @admin.action(
        description="Take the selected pictures down and keep them out", permissions=["operate"]
    )
    def take_down(self, request: HttpRequest, rows: QuerySet[ImageUrl]) -> HttpResponse | None:
        """Ask first, with the pictures in view: this cannot be undone."""
        if len(rows) > TAKE_DOWN_AT_ONCE:
            message = f"Take down at most {TAKE_DOWN_AT_ONCE} pictures at once."
            self.message_user(request, message, messages.WARNING)
            return None
        if "confirmed" not in request.POST:
            return self._ask_before_taking_down(request, rows)
        reason = request.POST.get("reason", "").strip()
        for row in rows:
            self.log_change(request, row, "taken down in the dashboard")
            takedowns.take_down_row(row, reason)
        count = phrases.counted(len(rows), "picture")
        self.message_user(request, f"{count} taken down and kept out.", messages.SUCCESS)
        return None

    def _ask_before_taking_down(
        self, request: HttpRequest, rows: QuerySet[ImageUrl]
    ) -> HttpResponse:
        shown = []
        for row in rows:
            shown.append((picture_of(row, 96), row))
        context = {
            **self.admin_site.each_context(request),
            "title": "Take pictures down",
            "opts": self.model._meta,
            "pictures": shown,
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return render(request, "admin/take_down.html", context)


class RunInline(RecordInline):
    model = TrainingRun
    fields = ("backbone", "created", "finished")


class ArtifactInline(RecordInline):
    model = Artifact
    fields = ("kind", "path", "bytes", "sha256", "created")


@admin.register(DatasetVersion)
class DatasetVersionAdmin(RequestLinkMixin, RecordAdmin):
    exclude = ("request",)
    list_display = ("__str__", "request_link", "number", "images", "created")
    list_filter = ("created",)
    search_fields = ("=request__id", "manifest_sha256")
    date_hierarchy = "created"
    list_select_related = ("request",)
    readonly_fields = ("request_link",)
    inlines = (RunInline, ArtifactInline)


@admin.register(TrainingRun)
class TrainingRunAdmin(VersionLinkMixin, RecordAdmin):
    exclude = ("version", "metrics", "comparison", "seconds", "notices")
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
    readonly_fields = (
        "version_link",
        "verdict",
        "accuracy",
        "interval",
        "classes",
        "took",
        "stages",
        "remarks",
    )

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

    @admin.display(description="Classes")
    def classes(self, row: TrainingRun) -> str:
        if not row.metrics:
            return "–"
        whole = completed(row.metrics)
        figures = whole["cross_validated"] or whole
        lines = []
        for name, shares in figures.get("per_class", {}).items():
            recognised = phrases.percent(shares["recall"])
            lines.append(f"{name}: {recognised} of {shares['support']} recognised")
        return listed(lines)

    @admin.display(description="Took")
    def took(self, row: TrainingRun) -> str:
        if not row.seconds:
            return "–"
        total = sum(row.seconds.values())
        return phrases.duration(total)

    @admin.display(description="Stages")
    def stages(self, row: TrainingRun) -> str:
        lines = []
        for name, seconds in row.seconds.items():
            took = phrases.duration(seconds)
            lines.append(f"{name} {took}")
        return listed(lines)

    @admin.display(description="Notices")
    def remarks(self, row: TrainingRun) -> str:
        return listed(row.notices)


@admin.register(Artifact)
class ArtifactAdmin(VersionLinkMixin, RecordAdmin):
    exclude = ("version", "bytes")
    list_display = ("__str__", "kind", "version_link", "size", "sha256_short", "created")
    list_filter = ("kind", "created")
    search_fields = ("=sha256", "path", "=version__request__id")
    date_hierarchy = "created"
    list_select_related = ("version__request",)
    readonly_fields = ("version_link", "size")

    @admin.display(description="Size", ordering="bytes")
    def size(self, row: Artifact) -> str:
        return phrases.size(row.bytes)

    @admin.display(description="SHA-256", ordering="sha256")
    def sha256_short(self, row: Artifact) -> str:
        return Truncator(row.sha256).chars(DIGITS_SHOWN)


@admin.register(Job)
class JobAdmin(RequestLinkMixin, RecordAdmin):
    list_display = (
        "pk",
        "request_link",
        "stage",
        "queue",
        "situation",
        "progress_percent",
        "attempt",
        "took",
        "created",
    )
    ordering = ("-pk",)
    list_filter = ("state", "stage", "queue", "created")
    search_fields = ("=id", "=request__id", "owner", "error")
    date_hierarchy = "created"
    list_select_related = ("request",)
    exclude = ("request", "state", "progress")
    readonly_fields = ("request_link", "situation", "progress_percent", "message", "took")

    @admin.display(description="State", ordering="state")
    def situation(self, row: Job) -> str:
        if row.is_stalled:
            return format_html('<strong class="poor">{}</strong>', "Stalled")
        return row.get_state_display()

    @admin.display(description="Progress")
    def progress_percent(self, row: Job) -> str:
        return dashboard.progress(row)

    @admin.display(description="Last message")
    def message(self, row: Job) -> str:
        return row.progress.get("message") or "–"

    @admin.display(description="Took")
    def took(self, row: Job) -> str:
        if row.seconds is None:
            return "–"
        return phrases.duration(row.seconds)


@admin.register(Event)
class EventAdmin(RequestLinkMixin, RecordAdmin):
    exclude = ("request",)
    list_display = ("at", "request_link", "old", "new", "reason", "actor")
    list_filter = ("new", "at")
    search_fields = ("=request__id", "reason", "actor")
    date_hierarchy = "at"
    list_select_related = ("request",)
    readonly_fields = ("request_link",)


@admin.register(Decision)
class DecisionAdmin(RequestLinkMixin, RecordAdmin):
    list_display = ("at", "request_link", "actor", "action", "value", "images", "undone")
    list_filter = ("action", "at")
    search_fields = ("=request__id", "actor", "value")
    date_hierarchy = "at"
    list_select_related = ("request",)
    exclude = ("request", "before")
    readonly_fields = ("request_link", "images")

    @admin.display(description="Pictures")
    def images(self, row: Decision) -> int:
        return len(row.before)


@admin.register(OwnCheck)
class OwnCheckAdmin(RequestLinkMixin, RecordAdmin):
    list_display = ("created", "request_link", "received", "measured", "trained", "removed")
    list_filter = ("created", "calibrates")
    search_fields = ("=request__id", "error")
    list_select_related = ("request",)
    # A person's own: names of files, and what the model says of each.
    exclude = ("request", "refused", "result", "earlier")
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
    exclude = ("text", "html", "request")
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
    list_display = ("what", "digest_short", "reason", "at", "finished")
    list_filter = ("what",)
    search_fields = ("digest", "reason")
    date_hierarchy = "at"

    @admin.display(description="Digest", ordering="digest")
    def digest_short(self, row: TakenDown) -> str:
        return Truncator(row.digest).chars(DIGITS_SHOWN)


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(RequestLinkMixin, RecordAdmin):
    list_display = ("pk", "request_link", "created")
    list_select_related = ("request",)
    search_fields = ("request__pk",)


@admin.register(Allowance)
class AllowanceAdmin(RecordAdmin):
    list_display = ("rule", "digest", "times", "until")
    list_filter = ("rule",)
    search_fields = ("digest",)

    @admin.display(description="Times")
    def times(self, row: Allowance) -> int:
        return len(row.taken)


@admin.register(LinksWish)
class LinksWishAdmin(RecordAdmin):
    list_display = ("created", "email")
    search_fields = ("email",)


@admin.register(WorkerBeat)
class WorkerBeatAdmin(RecordAdmin):
    list_display = ("cluster", "queue", "at", "alive", "stop")
    list_filter = ("queue", "stop")
    search_fields = ("cluster",)
    readonly_fields = ("alive",)

    @admin.display(description="Alive", boolean=True)
    def alive(self, row: WorkerBeat) -> bool:
        return row.is_fresh
