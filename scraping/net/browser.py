"""The Selenium driver: made when first needed, limited to the hosts its adapter names, and always
gone afterwards.

Chromium lies outside the guard of `scraping.net.http`: a page can make it ask for anything. So for all
but the allowed hosts it gets a proxy that nobody listens at, or, for pages that show pictures of
anywhere, one that lets it out to public addresses alone. It speaks to chromedriver through a pipe,
and chromedriver dies with the thread that started it: whatever kills this process, the pipe closes
and the whole browser ends.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import ChromeOptions, Remote
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.proxy import Proxy, ProxyType
from selenium.webdriver.remote.client_config import ClientConfig
from urllib3.exceptions import HTTPError

from scraping.net.forward_proxy import ForwardProxy
from scraping.net.http import FetchSettings

CHROME_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DRIVER_NAMES = ("chromedriver", "chromium.chromedriver")
PAGE_LOAD_SECONDS = 30
SCRIPT_SECONDS = 20
ANSWER_SECONDS = 60  # longer than the two above, so that the driver's own time-outs come first
PROFILE_PREFIX = "picaisso-chrome-"
START_SECONDS = 20
STARTS = 2  # a browser that ends while it starts (killed, out of memory) is started once more
RECYCLED_AFTER_VISITS = 25  # a browser grows with what it has shown
RECYCLED_AFTER_SECONDS = 1800
CLOSED_PORT = 9  # discard: nothing listens there, so what is not allowed goes nowhere
PR_SET_PDEATHSIG = 1
LOG_TAIL_BYTES = 2000

T = TypeVar("T")


class BrowserUnavailable(Exception):
    """No browser can be had; the text is a sentence for the user."""


class _NotStarted(BrowserUnavailable):
    """The programs are there, but did not come up this time."""


@dataclass(frozen=True)
class BrowserSettings:
    """Which browser, where it may go, and after how many visits it is replaced by a fresh one.

    `allowed_hosts` are patterns of Chromium's proxy bypass list, such as `127.0.0.1:8001` or `https://*.bing.com`.
    Empty paths are looked for; `remote_url` is a Selenium Grid, used instead of a local browser when set.
    `allowed_private_hosts` (`host:port`) holds for visits with pictures, which may come from any public host.
    """

    chrome: str = ""
    chromedriver: str = ""
    remote_url: str = ""
    locale: str = "en-US"
    allowed_hosts: tuple[str, ...] = ()
    allowed_private_hosts: tuple[str, ...] = ()
    recycled_after: int = RECYCLED_AFTER_VISITS


class Browser:
    """One browser, made lazily and replaced after a while. `with Browser(settings) as browser:
    browser.run(visit)`.

    Not shared by threads.
    """

    def __init__(self, settings: BrowserSettings) -> None:
        self._settings = settings
        self._running: _Running | None = None
        self._killed = False
        self._images = False
        self._visits = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.quit()

    def run(self, visit: Callable[[Remote], T], images: bool = False) -> T:
        """Call `visit` with the driver; when the browser was lost on the way, build it anew and
        call once more.

        Pictures are shown only when asked for, and then also those of other public hosts. Raises
        BrowserUnavailable when it cannot start or was lost twice.
        """
        self._retire(images)
        for attempt in (1, 2):
            try:
                return visit(self._driver())
            except (WebDriverException, HTTPError, ConnectionError) as error:
                if isinstance(error, TimeoutException) or self._answers():
                    raise
                self.quit()
                if self._killed:
                    raise BrowserUnavailable("The browser was stopped.") from error
                if attempt == 2:
                    raise BrowserUnavailable("The browser broke off twice.") from error
        raise AssertionError("not reached")

    def quit(self) -> None:
        """End the browser and everything it started, asked for or not."""
        running, self._running = self._running, None
        if running is not None:
            running.end()

    def kill(self) -> None:
        """End it for good, from another thread: the call that is under way then fails."""
        self._killed = True
        running = self._running
        if running is not None:
            running.kill()

    def _retire(self, images: bool) -> None:
        """End a browser that is of the other kind or has served long enough, before the next
        visit.
        """
        running = self._running
        if running is not None:
            old = time.monotonic() - running.started > RECYCLED_AFTER_SECONDS
            if old or self._visits >= self._settings.recycled_after or images is not self._images:
                self.quit()
        self._images = images
        self._visits = 1 if self._running is None else self._visits + 1

    def _driver(self) -> Remote:
        if self._running is None and not self._killed:
            self._running = self._start()
        if self._killed or self._running is None:
            self.quit()
            raise BrowserUnavailable("The browser was stopped.")
        return self._running.driver

    def _start(self) -> "_Running":
        for _ in range(STARTS - 1):
            with contextlib.suppress(_NotStarted):
                return _start(self._settings, self._images)
        return _start(self._settings, self._images)

    def _answers(self) -> bool:
        """Whether the browser still executes anything; a lost one is told from a page's error by
        asking.
        """
        if self._running is None:
            return False
        try:
            return self._running.driver.execute_script("return 1") == 1
        except (WebDriverException, HTTPError, ConnectionError):
            return False


@dataclass(frozen=True)
class _Running:
    driver: Remote
    service: Service | None
    profile: Path | None
    started: float
    forwarder: ForwardProxy | None

    def end(self) -> None:
        """Ask the driver to quit, then make sure."""
        with contextlib.suppress(WebDriverException, HTTPError, OSError):
            self.driver.quit()
        self.kill()
        if self.profile is not None:
            shutil.rmtree(self.profile, ignore_errors=True)

    def kill(self) -> None:
        """Kill chromedriver and all that runs in its session."""
        if self.service is not None:
            _kill_session(self.service.process)
        if self.forwarder is not None:
            self.forwarder.stop()


def _start(settings: BrowserSettings, images: bool) -> _Running:
    """Raises BrowserUnavailable with the reason."""
    if settings.remote_url:  # from over there, nobody reaches a forwarder of ours
        return _connect(
            settings.remote_url, _options(settings, None, images, None), None, None, None
        )
    chrome = _program(settings.chrome, CHROME_NAMES, "browser (Chromium)")
    driver = _program(settings.chromedriver, DRIVER_NAMES, "browser's driver (chromedriver)")
    _check_runs(chrome)
    _sweep_profiles()
    profile = Path(tempfile.mkdtemp(prefix=f"{PROFILE_PREFIX}{os.getpid()}-"))
    guard = FetchSettings(allowed_private_hosts=frozenset(settings.allowed_private_hosts))
    forwarder = ForwardProxy(guard).start() if images else None
    options = _options(settings, profile, images, forwarder)
    options.binary_location = chrome
    log = profile / "chromedriver.log"
    try:
        with log.open("wb") as output:
            service = _start_service(driver, output)
        return _connect(service.service_url, options, service, profile, forwarder)
    except BrowserUnavailable as error:
        tail = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
        shutil.rmtree(profile, ignore_errors=True)
        if forwarder is not None:
            forwarder.stop()
        raise _NotStarted(f"{error}{' ' + tail[-1] if tail else ''}") from error


def _connect(
    url: str,
    options: ChromeOptions,
    service: Service | None,
    profile: Path | None,
    forwarder: ForwardProxy | None,
) -> _Running:
    direct = Proxy(
        {"proxyType": ProxyType.DIRECT}
    )  # a proxy variable is not meant for the driver next door
    # A driver whose browser was killed waits long for it; a Grid has good reasons to wait for a
    # free one.
    client = ClientConfig(
        remote_server_addr=url, timeout=START_SECONDS if service else ANSWER_SECONDS, proxy=direct
    )
    try:
        driver = Remote(command_executor=url, options=options, client_config=client)
    except (WebDriverException, HTTPError, OSError) as error:
        if service is not None:
            _kill_session(service.process)
        raise _NotStarted(f"The browser cannot start: {_first_line(error)}") from error
    client.timeout = ANSWER_SECONDS
    driver.set_page_load_timeout(PAGE_LOAD_SECONDS)
    driver.set_script_timeout(SCRIPT_SECONDS)
    return _Running(driver, service, profile, time.monotonic(), forwarder)


def _start_service(driver: str, output: IO[bytes]) -> Service:
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None

    def die_with_parent() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died between fork and here
                os._exit(1)

    own_session = (
        {"start_new_session": True, "preexec_fn": die_with_parent} if os.name == "posix" else {}
    )
    # Both programs leave their temporary files beside the profile, so that one removal takes all.
    environment = {**os.environ, "TMPDIR": str(Path(output.name).parent)}
    service = Service(
        executable_path=driver, log_output=output, popen_kw=own_session, env=environment
    )
    service.path = driver  # the path given, whatever Selenium's own variables say
    try:
        service.start()
    except (WebDriverException, OSError) as error:
        raise _NotStarted(f"The browser's driver cannot start: {_first_line(error)}") from error
    return service


def _options(
    settings: BrowserSettings, profile: Path | None, images: bool, forwarder: ForwardProxy | None
) -> ChromeOptions:
    options = ChromeOptions()
    options.page_load_strategy = "eager"
    for argument in _arguments(settings, profile):
        options.add_argument(argument)
    options.add_argument(f"--proxy-server=127.0.0.1:{forwarder.port if forwarder else CLOSED_PORT}")
    if not images:
        options.add_argument("--blink-settings=imagesEnabled=false")
    # Peer connections send packets past the proxy; said twice, because the flag has changed its
    # name before.
    options.add_experimental_option(
        "prefs", {"webrtc.ip_handling_policy": "disable_non_proxied_udp"}
    )
    return options


def _arguments(settings: BrowserSettings, profile: Path | None) -> Iterator[str]:
    yield "--headless=new"
    yield "--window-size=1600,1200"  # decides how many results a page loads at once
    yield f"--lang={settings.locale}"
    yield "--mute-audio"
    yield "--no-first-run"
    yield "--disable-dev-shm-usage"
    yield "--disable-background-networking"
    yield "--disable-component-update"
    yield "--disable-sync"
    yield "--disable-breakpad"
    yield "--disable-gpu"
    yield "--dns-prefetch-disable"
    yield "--webrtc-ip-handling-policy=disable_non_proxied_udp"
    yield "--force-webrtc-ip-handling-policy=disable_non_proxied_udp"  # its name in older versions
    yield "--proxy-bypass-list=" + ";".join(["<-loopback>", *settings.allowed_hosts])
    if profile is not None:
        yield "--remote-debugging-pipe"
        yield f"--user-data-dir={profile / 'profile'}"
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            yield "--no-sandbox"


def _program(given: str, names: tuple[str, ...], what: str) -> str:
    for name in (given,) if given else names:
        if path := shutil.which(name):
            return path
    raise BrowserUnavailable(f"The {what} was not found{f' at {given}' if given else ''}.")


def _check_runs(chrome: str) -> None:
    """Through a pipe the driver does not notice a browser that ends at once, and waits for a
    minute.
    """
    try:
        done = subprocess.run(
            [chrome, "--version"], capture_output=True, timeout=START_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _NotStarted(f"The browser cannot start: {_first_line(error)}") from error
    if done.returncode != 0 or not done.stdout.strip():
        complaint = done.stderr.decode(errors="replace").strip().splitlines()
        raise _NotStarted(
            f"The browser cannot start: {complaint[-1] if complaint else 'it ends at once'}."
        )


def _first_line(error: BaseException) -> str:
    text = str(getattr(error, "msg", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _kill_session(process: "subprocess.Popen[bytes]") -> None:
    """Kill the driver and every process of its session, by pid."""
    members = list(_session_members(process.pid))
    process.kill()
    for pid in members:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)


def _session_members(session: int) -> Iterator[int]:
    """Pids whose session is the given one; nothing on systems without /proc."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and int(entry.name) != session:
                yield int(entry.name)


def _sweep_profiles() -> None:
    """Remove what killed processes left behind: a profile's name holds the pid of its owner."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PROFILE_PREFIX}*"):
        owner = folder.name.removeprefix(PROFILE_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            old = time.time() - folder.stat().st_mtime > 60
            if old and owner.isdecimal() and not Path(f"/proc/{owner}").exists():
                shutil.rmtree(folder, ignore_errors=True)
