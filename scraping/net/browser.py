"""The browser: started when first needed, limited to the hosts its source names, always ended.

Chromium lies outside the guard of `scraping.net.http`: a page can make it ask for anything. So for
all but the allowed hosts it gets a proxy at which nobody listens, or, for pages that show images
from anywhere, the forward proxy, which reaches public addresses alone. It speaks to chromedriver
through a pipe, and chromedriver dies with the thread that started it: whatever kills this process,
the pipe closes and the whole browser ends.
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
from typing import IO, Any, Self, TypeVar

import psutil
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import ChromeOptions, Remote
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.proxy import Proxy, ProxyType
from selenium.webdriver.remote.client_config import ClientConfig
from urllib3.exceptions import HTTPError

from scraping.net.forward_proxy import ForwardProxy
from scraping.net.http import FetchSettings
from training.environment import job_variables, machine_variables

CHROME_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DRIVER_NAMES = ("chromedriver", "chromium.chromedriver")
PAGE_LOAD_SECONDS = 30
SCRIPT_SECONDS = 20
ANSWER_SECONDS = 60  # longer than the two above, so that the driver's own time-outs come first
START_SECONDS = 20
STARTS = 2  # a browser that ends while it starts (killed, out of memory) is started once more
KILL_SECONDS = 5
PROFILE_PREFIX = "picaisso-chrome-"
SHORT_TEMPORARY = Path("/tmp")  # noqa: S108 - a folder of one's own is made in it
LONGEST_TEMPORARY = 29  # characters; a socket's path of at most 107 has 78 more
PROFILE_SECONDS = 60  # a younger profile may belong to a process that is still starting
RECYCLED_AFTER_VISITS = 25  # a browser grows with what it has shown
RECYCLED_AFTER_SECONDS = 1800
CLOSED_PORT = 9  # discard: nothing listens there, so what is not allowed goes nowhere
ALL_DOWNLOADS = 3  # of https://chromeenterprise.google/policies/#DownloadRestrictions
PR_SET_PDEATHSIG = 1  # of prctl(2)
LOG_TAIL_BYTES = 2000

T = TypeVar("T")


class BrowserUnavailable(Exception):
    """No browser can be had; the text is a sentence for the user."""


class _NotStarted(BrowserUnavailable):
    """The programs are there, but did not come up this time."""


@dataclass(frozen=True)
class BrowserSettings:
    """Which browser, where it may go, and after how many visits it is replaced by a fresh one.

    `allowed_hosts` are patterns of Chromium's proxy bypass list, such as `127.0.0.1:8001` or
    `https://*.bing.com`. Empty paths are looked for; `remote_url` is a Selenium Grid, used instead
    of a local browser when set. `allowed_private_hosts` (`host:port`) holds for visits with images,
    which may come from any public host.
    """

    chrome: str = ""
    chromedriver: str = ""
    remote_url: str = ""
    locale: str = "en-US"
    allowed_hosts: tuple[str, ...] = ()
    allowed_private_hosts: tuple[str, ...] = ()
    recycled_after: int = RECYCLED_AFTER_VISITS


class Browser:
    """One browser, started lazily and replaced after a while. Not to be shared by threads.

    `with Browser(settings) as browser: browser.run(visit)`.
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
        """Call `visit` with the driver; when the browser is lost on the way, once more with a new
        one.

        Images are shown only when asked for, and then also those of other public hosts. Raises
        BrowserUnavailable when the browser cannot start or was lost twice.
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
        """End the browser and everything it started."""
        running = self._running
        self._running = None
        if running is not None:
            running.end()

    def kill(self) -> None:
        """End it for good, from another thread: a visit that is under way then fails."""
        self._killed = True
        running = self._running
        if running is not None:
            running.kill()

    def _retire(self, images: bool) -> None:
        """End a browser of the other kind, or one that has served long enough, before a visit."""
        if self._running is not None:
            old = time.monotonic() - self._running.started > RECYCLED_AFTER_SECONDS
            used_up = self._visits >= self._settings.recycled_after
            if old or used_up or images is not self._images:
                self.quit()
        self._images = images
        self._visits = 1 if self._running is None else self._visits + 1

    def _driver(self) -> Remote:
        """Return the driver, of a new browser if need be. Raises BrowserUnavailable."""
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
        """Return whether the browser still executes anything: a page's error is not a lost one."""
        if self._running is None:
            return False
        try:
            return self._running.driver.execute_script("return 1") == 1
        except (WebDriverException, HTTPError, ConnectionError):
            return False


@dataclass(frozen=True)
class _Running:
    """A driver that answers, and what was started for it; nothing of that for a remote one."""

    driver: Remote
    started: float  # on the monotonic clock
    service: Service | None = None
    profile: Path | None = None
    proxy: ForwardProxy | None = None

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
        if self.proxy is not None:
            self.proxy.stop()


def _start(settings: BrowserSettings, images: bool) -> _Running:
    """Start a browser, or a session on the Grid. Raises BrowserUnavailable with the reason."""
    if settings.remote_url:
        options = _options(settings, CLOSED_PORT, images)  # nobody there reaches our proxy
        driver = _connect(settings.remote_url, options, ANSWER_SECONDS)
        return _Running(driver, time.monotonic())
    chrome = _find_program(settings.chrome, CHROME_NAMES, "browser (Chromium)")
    chromedriver = _find_program(
        settings.chromedriver, DRIVER_NAMES, "browser's driver (chromedriver)"
    )
    _check_starts(chrome)
    _remove_orphaned_profiles()
    prefix = f"{PROFILE_PREFIX}{os.getpid()}-"
    profile = Path(tempfile.mkdtemp(prefix=prefix, dir=_temporary_folder()))
    proxy = None
    if images:
        private_hosts = frozenset(settings.allowed_private_hosts)
        proxy = ForwardProxy(FetchSettings(allowed_private_hosts=private_hosts)).start()
    options = _options(settings, CLOSED_PORT if proxy is None else proxy.port, images)
    options.binary_location = chrome
    for argument in _local_arguments(profile):
        options.add_argument(argument)
    log = profile / "chromedriver.log"
    try:
        with log.open("wb") as output:
            service = _start_service(chromedriver, output)
        try:
            driver = _connect(service.service_url, options, START_SECONDS)
        except BrowserUnavailable:
            _kill_session(service.process)
            raise
    except BrowserUnavailable as error:
        last_line = _last_line(log)
        shutil.rmtree(profile, ignore_errors=True)
        if proxy is not None:
            proxy.stop()
        raise _NotStarted(f"{error} {last_line}".strip()) from error
    return _Running(driver, time.monotonic(), service, profile, proxy)


def _connect(url: str, options: ChromeOptions, start_seconds: int) -> Remote:
    """Open a session. Raises BrowserUnavailable when none comes within so many seconds.

    A local driver whose browser was killed waits long for it, so its time is short; a Grid may
    wait for a free browser.
    """
    direct = Proxy({"proxyType": ProxyType.DIRECT})  # the environment's is not meant for the driver
    client = ClientConfig(remote_server_addr=url, timeout=start_seconds, proxy=direct)
    try:
        driver = Remote(command_executor=url, options=options, client_config=client)
    except (WebDriverException, HTTPError, OSError) as error:
        raise _NotStarted(f"The browser cannot start: {_first_line(error)}") from error
    client.timeout = ANSWER_SECONDS
    driver.set_page_load_timeout(PAGE_LOAD_SECONDS)
    driver.set_script_timeout(SCRIPT_SECONDS)
    return driver


def _start_service(chromedriver: str, output: IO[bytes]) -> Service:
    """Start chromedriver in a session of its own that ends with the calling thread."""
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None

    def die_with_parent() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died between fork and here
                os._exit(1)

    arguments: dict[str, Any] = {}
    if os.name == "posix":
        arguments = {"start_new_session": True, "preexec_fn": die_with_parent}
    # Both programs leave their temporary files beside the profile, so that one removal takes all.
    environment = _environment() | {"TMPDIR": str(Path(output.name).parent)}
    service = Service(
        executable_path=chromedriver, log_output=output, popen_kw=arguments, env=environment
    )
    service.path = chromedriver  # the path given, whatever Selenium's own variables say
    try:
        service.start()
    except (WebDriverException, OSError) as error:
        raise _NotStarted(f"The browser's driver cannot start: {_first_line(error)}") from error
    return service


def _environment() -> dict[str, str]:
    """Return what a program that shows pages of strangers is told: the machine and its job.

    By the job it is found and ended where its parents were killed.
    """
    return machine_variables(os.environ) | job_variables(os.environ)


def _options(settings: BrowserSettings, proxy_port: int, images: bool) -> ChromeOptions:
    """Return Chromium's options as they are for a local browser and for a Grid."""
    options = ChromeOptions()
    options.page_load_strategy = "eager"
    for argument in (
        "--headless=new",
        "--window-size=1600,1200",  # decides how many results a page loads at once
        f"--lang={settings.locale}",
        "--mute-audio",
        "--no-first-run",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-breakpad",
        "--disable-gpu",
        "--dns-prefetch-disable",
        "--webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",  # in older versions
        f"--proxy-bypass-list={';'.join(['<-loopback>', *settings.allowed_hosts])}",
        f"--proxy-server=127.0.0.1:{proxy_port}",
    ):
        options.add_argument(argument)
    if not images:
        options.add_argument("--blink-settings=imagesEnabled=false")
    # Peer connections send packets past the proxy. Set as a preference too, because the flag has
    # changed its name before.
    preferences = {
        "webrtc.ip_handling_policy": "disable_non_proxied_udp",
        "download_restrictions": ALL_DOWNLOADS,  # else a page could fill the user's own folder
    }
    options.add_experimental_option("prefs", preferences)
    return options


def _local_arguments(profile: Path) -> Iterator[str]:
    yield "--remote-debugging-pipe"
    yield f"--user-data-dir={profile / 'profile'}"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield "--no-sandbox"


def _find_program(configured: str, names: tuple[str, ...], what: str) -> str:
    for name in (configured,) if configured else names:
        path = shutil.which(name)
        if path is not None:
            return path
    where = f" at {configured}" if configured else ""
    raise BrowserUnavailable(f"The {what} was not found{where}.")


def _check_starts(chrome: str) -> None:
    """Run `chrome --version`; for a browser that ends at once the driver would wait a minute."""
    try:
        done = subprocess.run(
            [chrome, "--version"],
            capture_output=True,
            timeout=START_SECONDS,
            check=False,
            env=_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _NotStarted(f"The browser cannot start: {_first_line(error)}") from error
    if done.returncode != 0 or not done.stdout.strip():
        complaint = done.stderr.decode(errors="replace").strip().splitlines()
        reason = complaint[-1] if complaint else "it ends at once"
        raise _NotStarted(f"The browser cannot start: {reason}.")


def _first_line(error: BaseException) -> str:
    text = str(getattr(error, "msg", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _last_line(log: Path) -> str:
    tail = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return tail.splitlines()[-1] if tail else ""


def _kill_session(driver: "subprocess.Popen[bytes]") -> None:
    """Kill the driver and every process of its session."""
    members = _session_members(driver.pid)
    driver.kill()
    for process in members:
        with contextlib.suppress(psutil.Error):
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        driver.wait(KILL_SECONDS)


def _session_members(session: int) -> list[psutil.Process]:
    """Return the other processes of a session, also those whose parent has ended."""
    if not hasattr(os, "getsid"):
        return []
    members = []
    psutil.process_iter.cache_clear()  # what it remembers of a pid may be of its earlier owner
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if process.pid != session and os.getsid(process.pid) == session:
                members.append(process)
    return members


def _temporary_folder() -> Path:
    """Return where profiles lie.

    Chromium makes a socket in its profile, and hangs where the path of that is too long for one.
    """
    folder = Path(tempfile.gettempdir())
    is_short = len(str(folder)) <= LONGEST_TEMPORARY
    return folder if is_short or not os.access(SHORT_TEMPORARY, os.W_OK) else SHORT_TEMPORARY


def _remove_orphaned_profiles() -> None:
    """Remove what killed processes left behind: a profile's name holds the pid of its owner."""
    for folder in _temporary_folder().glob(f"{PROFILE_PREFIX}*"):
        owner = folder.name.removeprefix(PROFILE_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            old = time.time() - folder.stat().st_mtime > PROFILE_SECONDS
            if old and owner.isdecimal() and not psutil.pid_exists(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)
