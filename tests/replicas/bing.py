"""Bing's image search as a browser meets it: scrolling, a see-more link, a consent banner, and
every known trap.
"""

import html
import json
import re
import time
from urllib.parse import quote

from tests.replicas.pictures import jpeg
from tests.replicas.server import Replica, Request, Response

PAGE_SIZE = 35
LOADS_BEFORE_SEE_MORE = 3
LOADS_AFTER_SEE_MORE = 2
TRAPS = 4  # tiles of the first page that name no new picture

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
li{{height:260px}} .invis{{display:none}}
#bnp_container{{position:fixed;bottom:0;left:0;right:0;height:33vh;background:#fff;z-index:9}}
</style></head><body data-adlt="{adlt}" data-qft="{qft}">
<form action="/images/search"><input id="sb_form_q" name="q" value="{query}"></form>
<div id="bnp_container"><button id="bnp_btn_accept">Accept</button>
<button id="bnp_btn_reject">Reject</button></div>
{body}
<script>/* this page has nothing to do with /turing/captcha or "One last step" */
for (const choice of ['accept', 'reject']) {{
  document.getElementById('bnp_btn_' + choice).onclick = () => {{
    document.getElementById('bnp_container').remove();
    fetch('/cookies?choice=' + choice);
  }};
}}
{script}</script></body></html>"""

BANNER = re.compile(
    r'<div id="bnp_container">.*?</div>|^for \(const choice.*?^}$', re.DOTALL | re.MULTILINE
)
SCRIPT = """
const control = document.querySelector('.dgControl');
const end = document.getElementById('bop_container');
let left = %d, clicked = false, busy = false;
async function more() {
  const next = control.getAttribute('data-nextUrl');
  if (busy || !next || innerHeight + scrollY < document.body.scrollHeight - 300) return;
  if (left === 0) { if (!clicked) end.classList.remove('invis'); return; }
  busy = true;
  await new Promise((done) => setTimeout(done, 150));
  const answer = await fetch(next);
  if (answer.ok) {
    const box = document.createElement('div');
    box.innerHTML = await answer.text();
    const part = box.querySelector('.dgControl');
    if (part) {
      control.append(...part.querySelectorAll('ul'));
      control.setAttribute('data-nextUrl', part.getAttribute('data-nextUrl'));
    }
    left -= 1;
  }
  busy = false;
}
end.querySelector('.btn_seemore').addEventListener('click', (event) => {
  event.preventDefault(); clicked = true; left = %d; end.remove(); more();
});
addEventListener('scroll', more);
"""


class BingReplica(Replica):
    """`total` pictures per query. Words in the query choose a scenario.

    `noresults`, `captcha`, `shell`, `changed`, `forbidden`, `overloaded` answer the page so;
    `drifted` has tiles that mostly cannot be read; `throttled` refuses the second fragment,
    `broken` fails on it for good, `flaky` fails each fragment once, `silent` answers an empty body
    past the end instead of repeating the last batch; `slow` takes `slow_seconds`; `nocookies` asks
    nothing about cookies. `robots` is the text of robots.txt, `extra` is put into every result
    page.
    """

    def __init__(
        self,
        total: int = 110,
        pictures: str = "",
        robots: str = "User-agent: *\nAllow: /\n",
        extra: str = "",
        slow_seconds: float = 20,
    ) -> None:
        super().__init__()
        self.slow_seconds = slow_seconds
        self.total = total
        self.robots = robots
        self.extra = extra
        self._pictures = pictures
        self._failed: set[str] = set()

    def respond(self, request: Request) -> Response:
        words = request.query.get("q", "")
        if request.path == "/robots.txt":
            return Response(self.robots.encode(), "text/plain")
        if request.path.startswith("/pic/"):
            return Response(jpeg(int(request.path.split("/")[2].partition(".")[0])), "image/jpeg")
        if request.path == "/images/async":
            return self._fragment(request, words)
        if request.path == "/cookies":
            return Response(b"ok", "text/plain")
        if request.path == "/images/search":
            return self._page(request, words)
        if request.path.startswith("/turing/captcha"):
            return Response(
                b"<title>Bing</title><h1>One last step</h1>"
                b"Please solve the challenge below to continue"
            )
        return Response(b"no", "text/plain", 404)

    def _page(self, request: Request, words: str) -> Response:
        if "captcha" in words:
            return Response(
                status=302, headers={"Location": "/turing/captcha/challenge?q=" + quote(words)}
            )
        if "shell" in words:
            return Response(b"<!doctype html><title>Bing</title><div id=b_header></div>")
        if "forbidden" in words:
            return Response(b"no", "text/plain", 403)
        if "overloaded" in words:
            return Response(b"later", "text/plain", 503)
        if "slow" in words:
            time.sleep(self.slow_seconds)
        body, script = self._results(words)
        raw = {
            name: value
            for name, _, value in (
                p.partition("=") for p in request.target.split("?")[1].split("&")
            )
        }
        text = PAGE.format(
            title=html.escape(words),
            query=html.escape(words),
            adlt=raw.get("adlt", ""),
            qft=html.escape(raw.get("qft", "")),
            body=body + self.extra,
            script=script,
        )
        return Response(
            text.encode() if "nocookies" not in words else BANNER.sub("", text).encode()
        )

    def _results(self, words: str) -> tuple[str, str]:
        if "noresults" in words:
            return f"<p>There are no results for {html.escape(words)}</p>" + "<p></p>" * 400, ""
        control = self._control(words, 1)
        if "changed" in words:
            control = (
                control.replace("iusc", "tile2027")
                .replace("dgControl", "grid")
                .replace("dg_b", "g")
            )
            return control + "<p></p>" * 400, ""
        end = (
            '<div id="bop_container" class="invis"><div class="mm_seemore">'
            '<a class="btn_seemore cbtn mBtn" href="#">See more images</a></div></div>'
        )
        return f'<div class="dg_b" role="main">{control}</div>{end}', SCRIPT % (
            LOADS_BEFORE_SEE_MORE,
            LOADS_AFTER_SEE_MORE,
        )

    def _fragment(self, request: Request, words: str) -> Response:
        first, count = int(request.query["first"]), int(request.query.get("count", PAGE_SIZE))
        if "throttled" in words and first > PAGE_SIZE + 1:
            return Response(b"", status=429)
        if "broken" in words and first > PAGE_SIZE + 1:
            return Response(b"", status=500)
        if "flaky" in words and request.target not in self._failed:
            self._failed.add(request.target)
            return Response(b"", status=500)
        if first > self.total:
            if "silent" in words:
                return Response(b"")
            first = max(1, self.total - count + 1)  # repeat the last batch, as the site does
        return Response(self._control(words, first, min(count, PAGE_SIZE)).encode())

    def _control(self, words: str, first: int, count: int = PAGE_SIZE) -> str:
        last = min(first + count - 1, self.total)
        tiles = [self._tile(words, number) for number in range(first, last + 1)]
        if first == 1:
            tiles[5:5] = self._traps()
        following = (
            f"/images/async?q={quote(words)}&first={last + 1}&count={PAGE_SIZE}&relp=35&mmasync=1"
        )
        return (
            f'<div id="mmComponent_images_{first}" class="dgControl hover" '
            f'data-nextUrl="{html.escape(following)}" data-iid="images.5{first:03d}" '
            'data-layout="row"><ul class="dgControl_list " data-row="1">'
            + "".join(tiles)
            + "</ul></div>"
        )

    def _tile(self, words: str, number: int) -> str:
        address = (
            self._pictures.format(number) if self._pictures else f"{self.url}/pic/{number}.jpg"
        )
        facts = {
            "murl": address,
            "turl": f"{self.url}/th?id=OIP.{number}",
            "purl": f"https://pages.example/{number}",
            "t": f"\ue000{words}\ue001 &amp; friends {number}",
        }
        text = "{broken" if "drifted" in words and number % 3 else json.dumps(facts)
        href = (
            ""
            if number % 5 == 2
            else f"/images/search?view=detailV2&exph=240&expw=320&mediaurl={quote(address)}"
        )
        size = "320 × 240 · jpeg" if number % 2 else "320 x 240 · jpeg"
        return _markup(text, href, size, swapped=number % 2 == 0, lazy=number % 4 == 0)

    def _traps(self) -> list[str]:
        again = json.dumps({"murl": f"{self.url.upper().replace('HTTP', 'http')}/pic/1.jpg#again"})
        if self._pictures:
            again = json.dumps({"murl": self._pictures.format(1)})
        bad = (
            "{not json",
            json.dumps({"t": "no picture"}),
            json.dumps({"murl": "data:image/gif;base64,R0lGODdh"}),
        )
        return [_markup(text, "", "", swapped=False, lazy=False) for text in (*bad, again)]


def _markup(facts: str, href: str, size: str, swapped: bool, lazy: bool) -> str:
    pairs = [f'm="{html.escape(facts)}"', f'href="{html.escape(href)}"']
    first, second = reversed(pairs) if swapped else pairs
    thumb = 'data-src="/th?id=1"' if lazy else 'src="/th?id=1"'
    css = "iusc " if swapped else "iusc"
    return (
        '<li data-idx="1"><div class="iuscp varh"><div class="imgpt">'
        f'<a {first} class="{css}" {second}>'
        f'<div class="img_cont hoff"><img class="mimg" {thumb}></div></a>'
        f'<div class="img_info hon"><span class="nowrap">{size}</span></div></div>'
        '<div class="infopt"><a title="a caption">a caption</a></div></div></li>'
    )
