"""Google's image search as a browser meets it: tiles that honour only real clicks, panels that show
the original late.

Also its question about cookies, its human check, and good pages whose scripts speak of the human
check.
"""

import html
import json
from urllib.parse import quote

from tests.replicas.pictures import jpeg
from tests.replicas.server import Replica, Request, Response

FIRST_TILES = 12
NEVER_SHOWN = 4  # this tile's original never loads
ICON = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>{title} - Google Search</title><style>
div[jsname="dTDiAc"]{{display:inline-block;width:230px;height:230px;margin:6px;background:#eee}}
#panel{{position:fixed;right:0;top:0;width:400px;height:100vh;background:#fff}}
#rso{{margin-right:400px}}
#dialog{{position:fixed;inset:0;background:#fffc;z-index:9}}
</style></head><body data-safe="{safe}">
<form action="/search"><textarea name="q">{title}</textarea></form>
{body}<script>/* a blocked reader would be sent to /sorry/index, with "unusual traffic" */
const known = {pictures}, late = {late}, dead = {dead}, more = {more};
{script}</script></body></html>"""

SCRIPT = """
const rso = document.getElementById('rso');
window.untrusted = 0;
function tile(number) {
  const box = document.createElement('div');
  box.setAttribute('jsname', 'dTDiAc');
  box.className = 'eA0Zlc';
  box.setAttribute('data-lpage', 'https://pages.example/' + number);
  box.setAttribute('data-docid', 'doc' + number);
  box.innerHTML = '<img width=16 height=16 alt="" src="ICON">' +
    '<img width=200 height=150 alt="caption &amp; ' + number +
    '" src="/thumb/' + number + '.jpg">';
  box.addEventListener('click', (event) => {
    if (!event.isTrusted) { window.untrusted += 1; return; }
    fetch('/clicked?number=' + number);
    if (!dead) open(number);
  });
  rso.append(box);
}
function open(number) {
  const panel = document.createElement('div');
  panel.setAttribute('jsname', 'figiqf');
  panel.innerHTML = '<img class="rl" width=16 height=16 src="ICON">' +
    '<img jsname="kn3ccd" width=300 alt="large" src="ICON"><button jsname="OCpkoe">Next</button>';
  panel.querySelector('button').disabled = number === known.length - 1;
  document.getElementById('panel').append(panel);
  if (!late.includes(number)) {
    const large = panel.querySelector('[jsname=kn3ccd]');
    const original = new Image();  // the preview is replaced only by an original that has loaded
    original.onload = () => setTimeout(() => { large.src = known[number]; }, 300);
    original.src = known[number];
  }
}
let shown = 0;
function show(count) { for (; shown < Math.min(count, known.length); shown += 1) tile(shown); }
if (rso) {
  show(FIRST);
  addEventListener('scroll', () => {
    const atEnd = innerHeight + scrollY > document.body.scrollHeight - 50;
    if (more && atEnd) setTimeout(() => show(shown + FIRST), 200);
  });
}
const reject = document.getElementById('W0wltc');
if (reject) reject.onclick = () => document.getElementById('dialog').remove();
"""
SORRY = """<!doctype html><title>Sorry</title><form id="captcha-form" action="index">
<p>Our systems have detected unusual traffic from your computer network.</p>
<button>I am not a robot</button></form>"""
CONSENT = """<!doctype html><title>Before you continue</title><h1>Before you continue</h1>
<form action="/consent-saved" method="get"><input type="hidden" name="continue" value="{target}">
<button aria-label="Accept all" name="choice" value="accept">Accept all</button>
<button aria-label="Reject all" name="choice" value="reject">Reject all</button></form>"""


class GoogleReplica(Replica):
    """`total` pictures per query. Words in the query choose a scenario.

    `consent` asks about cookies on another page first, `wall` asks again and again, `dialog` asks
    over the results, `sorry` is a human check, `noscript` the page for browsers without scripts,
    `noresults`, `changed`, `forbidden` and `overloaded` answer so; `dead` has tiles that open
    nothing, `previews` shows previews only. `robots` is the text of robots.txt, `extra` is put into
    every result page. Originals lie at `pictures`, a URL with a place for a number, or here.
    """

    def __init__(
        self,
        total: int = FIRST_TILES,
        robots: str = "User-agent: *\nAllow: /\n",
        extra: str = "",
        pictures: str = "",
    ) -> None:
        super().__init__()
        self._pictures = pictures or f"{self.url}/pic/{{}}.jpg"
        self.total = total
        self.robots = robots
        self.extra = extra
        self._choices: list[str] = []

    @property
    def choices(self) -> list[str]:
        """What was answered to the question about cookies."""
        return self._choices

    def respond(self, request: Request) -> Response:
        if request.path == "/robots.txt":
            return Response(self.robots.encode(), "text/plain")
        if request.path.startswith(("/pic/", "/thumb/")):
            number = int(request.path.split("/")[2].partition(".")[0])
            size = (320, 240) if request.path.startswith("/pic/") else (160, 120)
            return Response(jpeg(number, size), "image/jpeg")
        if request.path == "/consent-saved":
            self._choices.append(request.query["choice"])
            return Response(status=302, headers={"Location": request.query["continue"]})
        if request.path == "/ml":
            return Response(CONSENT.format(target=html.escape(request.query["continue"])).encode())
        if request.path.startswith("/sorry"):
            return Response(SORRY.encode(), status=429)
        if request.path == "/httpservice/retry/enablejs":
            return Response(
                b"<!doctype html><title>Google Search</title><noscript>Turn on scripts</noscript>"
            )
        if request.path == "/clicked":
            return Response(b"ok", "text/plain")
        return (
            self._search(request)
            if request.path == "/search"
            else Response(b"no", "text/plain", 404)
        )

    def _search(self, request: Request) -> Response:
        words = request.query.get("q", "")
        elsewhere = {
            "sorry": "/sorry/index?continue=x",
            "noscript": "/httpservice/retry/enablejs?sei=x",
        }
        if "wall" in words or ("consent" in words and not self._choices):
            elsewhere["w"] = elsewhere["c"] = "/ml?continue=" + quote(request.target, safe="")
        for mark, target in elsewhere.items():
            if mark in words:
                return Response(status=302, headers={"Location": target})
        if "forbidden" in words or "overloaded" in words:
            return Response(b"no", "text/plain", 403 if "forbidden" in words else 503)
        return Response(self._page(words, request.query.get("safe", "")).encode())

    def _page(self, words: str, safe: str) -> str:
        body = '<div id="search"><div id="rso"></div></div><div id="panel"></div>'
        if "noresults" in words:
            body = '<div id="search"><p>Your search did not match any image results.</p></div>'
        if "changed" in words:
            body = (
                '<main id="grid27"><div class="cell">'
                '<img alt="x" width=200 height=200></div></main>'
            )
        if "dialog" in words:
            body += (
                '<div id="dialog"><button id="L2AGLb">Accept all</button>'
                '<button id="W0wltc">Reject all</button></div>'
            )
        return PAGE.format(
            title=html.escape(words),
            safe=safe,
            body=body + self.extra,
            pictures=json.dumps([self._pictures.format(number) for number in range(self.total)]),
            late=json.dumps(list(range(self.total)) if "previews" in words else [NEVER_SHOWN]),
            dead=json.dumps("dead" in words),
            more=json.dumps(self.total > FIRST_TILES),
            script=SCRIPT.replace("ICON", ICON).replace("FIRST", str(FIRST_TILES)),
        )
