"""A backup of the whole site in one file, and its restore.

The file is an uncompressed tar (pictures are compressed already): `backup.json` says what it is,
then come the database as it was at one moment, the files of the data folder, and `SHA256SUMS`. The
database comes first. So each file that it names is there, unless somebody deleted it while the
backup was made; what work wrote meanwhile is more than it names, and does no harm.
"""

import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

FORMAT = 1
HEADER = "backup.json"
SUMS = "SHA256SUMS"
FILES = "data"
DATABASES = {"sqlite": "database.sqlite3", "mysql": "database.sql"}
# Made anew by whoever needs it, or of one process alone.
LEFT_OUT = {"arriving", "cache", "qstat", "static"}
LOCKS = ".lock"
# A folder that holds no more than this is empty: any command of the site makes it.
MADE_BY_EVERY_COMMAND = {"arriving", "qstat", "secret_key"}
CHUNK_BYTES = 1 << 20


class BackupFailed(Exception):
    """It cannot be done; the text is a sentence for the operator."""


@dataclass(frozen=True)
class Contents:
    """What a backup holds.

    `migrations` names those that its database has had; `vanished` counts files that were deleted
    while it was made.
    """

    format: int
    made: str
    database: str
    migrations: list[str]
    files: int = 0
    bytes: int = 0
    vanished: int = 0


# --- making one ---


def write(target: Path) -> Contents:
    """Write a backup; the file is there when it is whole, and only its owner can read it.

    :raises BackupFailed: the file exists or lies in the data folder, or the database cannot be read
    :raises OSError: a file cannot be read, or the target not be written
    """
    data = Path(settings.DATA_DIR).resolve()
    target = target.resolve()
    if target.exists():
        raise BackupFailed(f"{target} exists already; choose another name.")
    if target.is_relative_to(data):
        raise BackupFailed(f"Choose a file outside of the data folder {data}.")
    unfinished = target.with_name(f"{target.name}.part")
    try:
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                contents = _fill(_Writer(archive), data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return contents


class _Writer:
    """Adds to an archive, and keeps the books for `SHA256SUMS`."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self.archive = archive
        self.sums: dict[str, str] = {}
        self.first_names: dict[tuple[int, ...], str] = {}
        self.bytes = 0

    def add_text(self, name: str, text: str) -> None:
        content = text.encode()
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mode = 0o600
        self.archive.addfile(info, io.BytesIO(content))
        self.sums[name] = hashlib.sha256(content).hexdigest()

    def add_file(self, name: str, path: Path) -> None:
        """Add a file as long as it is now; what is appended meanwhile is left out.

        A second name of one file is stored as a link to the first.
        """
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            # The number alone does not tell: it may be that of a file that is gone by now.
            same_file = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
            first_name = self.first_names.setdefault(same_file, name)
            info = tarfile.TarInfo(name)
            info.mode = state.st_mode & 0o777
            info.mtime = int(state.st_mtime)
            if first_name != name:
                info.type = tarfile.LNKTYPE
                info.linkname = first_name
                self.archive.addfile(info)
                return
            info.size = state.st_size
            reader = _HashingReader(file)
            self.archive.addfile(info, reader)  # type: ignore[arg-type]  # it only reads
        self.sums[name] = reader.digest.hexdigest()
        self.bytes += info.size

    def add_link(self, name: str, path: Path) -> None:
        self.archive.addfile(self.archive.gettarinfo(str(path), arcname=name))

    def add_sums(self) -> None:
        self.add_text(SUMS, "".join(f"{digest}  {name}\n" for name, digest in self.sums.items()))


class _HashingReader:
    """A file that is read once, with the digest of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        block = self.file.read(size)
        self.digest.update(block)
        return block


def _fill(writer: _Writer, data: Path) -> Contents:
    kind = _kind_of_database()
    made = timezone.now().isoformat(timespec="seconds")
    contents = Contents(FORMAT, made, kind, _migrations_of_database())
    writer.add_text(HEADER, json.dumps(asdict(contents), indent=1))
    with tempfile.TemporaryDirectory(prefix="picaisso-backup-") as folder:
        copy = Path(folder) / DATABASES[kind]
        _dump(copy)
        writer.add_file(copy.name, copy)
    files = 0
    vanished = 0
    for path in list(_files_of(data)):
        name = f"{FILES}/{path.relative_to(data).as_posix()}"
        try:
            if path.is_symlink():
                writer.add_link(name, path)
            else:
                writer.add_file(name, path)
            files += 1
        except FileNotFoundError:
            vanished += 1
    writer.add_sums()
    return Contents(FORMAT, made, kind, contents.migrations, files, writer.bytes, vanished)


def _files_of(data: Path) -> Iterator[Path]:
    """Yield the files of the data folder that nothing else makes, and its symbolic links."""
    database = _sqlite_file()
    for folder, folders, names in os.walk(data):
        if Path(folder) == data:
            folders[:] = [name for name in folders if name not in LEFT_OUT]
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(folder) / name
            is_database = database is not None and str(path).startswith(str(database))
            is_regular = path.is_symlink() or path.is_file()
            if is_regular and not is_database and path.suffix != LOCKS:
                yield path


# --- bringing one back ---


def read(source: Path) -> Contents:
    """Read a backup to its end and compare every file with its checksum; change nothing.

    :raises BackupFailed: it is none, is damaged, or is of a newer version
    """
    found: dict[str, str] = {}
    sums: dict[str, str] = {}
    header: dict[str, Any] = {}
    total = 0
    try:
        with tarfile.open(source, "r:") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is None:
                    continue
                if member.name in (HEADER, SUMS):
                    text = file.read().decode()
                    if member.name == SUMS:
                        sums = _parse_sums(text)
                        continue
                    header = json.loads(text)
                    file = io.BytesIO(text.encode())
                found[member.name] = _digest(file)
                total += member.size
    except OSError as error:
        raise BackupFailed(f"{source} cannot be read: {error.strerror or error}.") from error
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise BackupFailed(f"{source} is no backup, or a damaged one: {error}.") from error
    wrong = sorted(name for name in found | sums if found.get(name) != sums.get(name))
    if not sums:
        raise BackupFailed(f"{source} is no backup, or was cut off: it has no {SUMS}.")
    if wrong:
        names = ", ".join(wrong[:3])
        raise BackupFailed(f"{source} is damaged: {names} is not as it was. Use another backup.")
    files = sum(name.startswith(f"{FILES}/") for name in found)
    return _contents_of(header, files, total)


def _contents_of(header: dict[str, Any], files: int, total: int) -> Contents:
    """Return what a header tells. Raises BackupFailed where this version cannot use it."""
    try:
        made = str(header["made"])
        contents = Contents(header["format"], made, header["database"], header["migrations"])
    except KeyError as error:
        raise BackupFailed(f"The backup does not say its {error}.") from error
    unknown = set(contents.migrations) - set(_known_migrations())
    if contents.format > FORMAT or unknown:
        raise BackupFailed("The backup is of a newer version of Picaisso: update this one first.")
    return Contents(FORMAT, made, contents.database, contents.migrations, files, total)


def restore(source: Path) -> Contents:
    """Bring a site back into an empty data folder and an empty database.

    :raises BackupFailed: the backup cannot be used, or something is there already; then nothing
        has changed
    :raises OSError: the data folder cannot be written
    """
    contents = read(source)
    data = Path(settings.DATA_DIR)
    _check_is_empty(data, contents)
    with tempfile.TemporaryDirectory(prefix="restoring-", dir=data) as scratch:
        with tarfile.open(source, "r:") as archive:
            archive.extractall(scratch, filter="data")
        _remove_made_by_commands(data)
        unpacked = Path(scratch) / FILES
        for path in sorted(unpacked.iterdir()) if unpacked.is_dir() else []:
            path.rename(data / path.name)
        _load(Path(scratch) / DATABASES[contents.database])
    (data / "arriving").mkdir(exist_ok=True)
    return contents


def _check_is_empty(data: Path, contents: Contents) -> None:
    """:raises BackupFailed: something is there, or the database is of another kind"""
    kind = _kind_of_database()
    if contents.database != kind:
        raise BackupFailed(
            f"The backup holds a database of {contents.database}, and DATABASE_URL names one of "
            f"{kind}. Restore with a DATABASE_URL of the same kind, then move the database."
        )
    data.mkdir(parents=True, exist_ok=True)
    database = _sqlite_file()
    there = sorted(path.name for path in data.iterdir() if path.name not in MADE_BY_EVERY_COMMAND)
    if any((data / "arriving").glob("*")):
        there.append("arriving")
    if there:
        raise BackupFailed(
            f"The data folder {data} is not empty: it holds {', '.join(there[:5])}. Set "
            "PICAISSO_DATA_DIR to an empty folder."
        )
    if database is not None and database.exists():
        raise BackupFailed(f"The database {database} exists already.")
    if database is None and connection.introspection.table_names():
        raise BackupFailed("The database that DATABASE_URL names is not empty.")


def _remove_made_by_commands(data: Path) -> None:
    for name in MADE_BY_EVERY_COMMAND:
        path = data / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(CHUNK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _parse_sums(text: str) -> dict[str, str]:
    sums = {}
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    return sums


# --- the database ---


def _kind_of_database() -> str:
    """Return `sqlite` or `mysql`. Raises BackupFailed for any other."""
    vendor = connection.vendor
    if vendor not in DATABASES:
        raise BackupFailed(f"A database of {vendor} cannot be backed up.")
    return vendor


def _sqlite_file() -> Path | None:
    """Return where the database lies, None where it is a server's or in memory."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor != "sqlite" or ":memory:" in name or name.startswith("file:"):
        return None
    return Path(name).resolve()


def _migrations_of_database() -> list[str]:
    loader = MigrationLoader(connection)
    return sorted(f"{app}.{name}" for app, name in loader.applied_migrations)


def _known_migrations() -> list[str]:
    loader = MigrationLoader(None)
    return [f"{app}.{name}" for app, name in loader.disk_migrations]


def _dump(copy: Path) -> None:
    """Write the database as it is at one moment, while others go on writing.

    :raises BackupFailed: it cannot be read, or no program is there that can
    """
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        with closing(sqlite3.connect(copy)) as target:
            connection.connection.backup(target)
            (verdict,) = target.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise BackupFailed(f"The database is damaged: {verdict}")
        return
    flags = ["--single-transaction", "--hex-blob", "--no-tablespaces"]
    with copy.open("wb") as output, _mysql_client("mariadb-dump", "mysqldump") as run:
        run(*flags, stdout=output)


def _load(copy: Path) -> None:
    """Bring a database back. Raises BackupFailed where the server refuses it."""
    if connection.vendor == "sqlite":
        database = _sqlite_file()
        if database is None:
            raise BackupFailed("A database in memory cannot be restored.")
        database.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(copy, database)
        return
    with copy.open("rb") as source, _mysql_client("mariadb", "mysql") as run:
        run(stdin=source)


@contextmanager
def _mysql_client(*programs: str) -> Iterator[Any]:
    """Yield a function that runs the first of these programs that is there, on our database.

    The password stands in a file that only we can read: a command line can be read by everybody.
    """
    found = [path for path in map(shutil.which, programs) if path]
    if not found:
        names = " nor ".join(programs)
        raise BackupFailed(f"Neither {names} is installed: apt-get install mariadb-client.")
    values = connection.settings_dict
    lines = ["[client]", "default-character-set=utf8mb4"]
    for option, key in (("host", "HOST"), ("port", "PORT"), ("user", "USER")):
        if values[key]:
            lines.append(f'{option}="{values[key]}"')
    escaped = str(values["PASSWORD"]).replace("\\", "\\\\").replace('"', '\\"')
    lines.append(f'password="{escaped}"')
    with tempfile.NamedTemporaryFile("w", prefix="picaisso-client-") as options:  # mode 0600
        options.write("\n".join(lines) + "\n")
        options.flush()

        def run(*flags: str, **streams: Any) -> None:
            command = [found[0], f"--defaults-extra-file={options.name}", *flags, values["NAME"]]
            done = subprocess.run(command, stderr=subprocess.PIPE, check=False, **streams)
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip()
                raise BackupFailed(f"The database server refused: {said[-500:]}")

        yield run
