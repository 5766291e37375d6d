"""Restart PostgreSQL twice while ``fracspike sweep`` runs, and see what comes of the sweep.

    python benchmarks/postgres_sweep.py [--points 16] [--workers 2] [--away 5] [--driver psycopg2]

Starts a server of its own on the loopback interface, with its files in a temporary folder; run by root, the
server is given to another user, as PostgreSQL demands. Sweeps a target that writes down each measurement. The
server is first stopped in good order, later killed with all its connections open; each time it stays away
for a while. Afterwards the sweep must have ended with status 0, each point must have been measured and
stored once, and the password must have appeared nowhere: not in the output, the files, or the arguments of a
process. A sweep with a wrong password must end with one line, without that password.

Needs PostgreSQL's programs and one of its drivers (``pip install psycopg2-binary`` or ``"psycopg[binary]"``);
says which is missing and ends with status 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from fracspike.experiments import Experiment

DIARY = "POSTGRES_SWEEP_DIARY"
SECONDS = 1.0  # of one measurement
DRIVERS = ("psycopg2", "psycopg")
LIMIT = 900.0  # seconds for one sweep


def trial(parameters: Mapping[str, float | int | str], seed: int) -> dict[str, float]:
    """Write down that this point is measured, and take a while."""
    with Path(os.environ[DIARY]).open("a") as file:
        file.write(f"{parameters['x']} {seed}\n")
    time.sleep(SECONDS)
    return {"square": float(parameters["x"]) ** 2 + seed}


SLOW = Experiment(
    name="slow",
    title="a slow measurement",
    source="nowhere",
    duration="seconds",
    run=lambda run: [],
    parameters={"x": 0.5},
    trial=trial,
)


class Server:
    """A PostgreSQL server of one's own.

    Args:
        programs: the folder of ``initdb`` and ``pg_ctl``.
        folder: for its files.
        password: of its only user, ``ann``.
    """

    def __init__(self, programs: Path, folder: Path, password: str) -> None:
        self.programs, self.data, self.log = programs, folder / "data", folder / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        given = folder / "password"
        given.touch(mode=0o600)
        given.write_text(password)
        if self.owner:
            for path in (folder, given):
                os.chown(path, self.owner.pw_uid, self.owner.pw_gid)
        self._run("initdb", "--auth=scram-sha-256", "--username=ann", f"--pwfile={given}", "--no-sync")
        given.unlink()

    def _run(self, program: str, *arguments: str) -> None:
        other = (
            {"user": self.owner.pw_uid, "group": self.owner.pw_gid, "extra_groups": []} if self.owner else {}
        )
        command = [str(self.programs / program), f"--pgdata={self.data}", *arguments]
        # the server that pg_ctl leaves behind keeps the output open: to a file, or nobody sees its end
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(command, cwd="/", stdout=said, stderr=said, **other)
            said.seek(0)
            assert done.returncode == 0, said.read()

    def start(self) -> None:
        """Return when it answers."""
        options = f"-h 127.0.0.1 -p {self.port} -k '' -F"  # no socket file, and no waiting for the disk
        self._run("pg_ctl", "start", "--wait", f"--log={self.log}", f"--options={options}")

    def stop(self, mode: str) -> None:
        """Return when it is gone: ``fast`` ends its connections in good order, ``immediate`` kills them."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")


@contextmanager
def running(programs: Path, folder: Path, password: str) -> Iterator[Server]:
    """A server that is stopped at the end."""
    server = Server(programs, folder, password)
    server.start()
    try:
        yield server
    finally:
        server.stop("immediate")


class Sweep:
    """A sweep in processes of its own.

    Args:
        url: the storage.
        folder: for its results and output.
        points: how many.
        workers: how many.
    """

    def __init__(self, url: str, folder: Path, points: int, workers: int) -> None:
        folder.mkdir()
        self.folder, self.diary, self.output = folder, folder / "diary", folder / "output"
        paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        more = {DIARY: str(self.diary), "PYTHONPATH": paths, "FRACSPIKE_STORAGE": url}
        grid = ["--grid", f"seed=0:{points // 2}", "x=0.25,0.75"]
        command = [sys.executable, "-m", "fracspike", "sweep", "postgres_sweep:SLOW", *grid]
        command += ["--workers", str(workers), "--out", str(folder / "out")]
        with self.output.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **more})
        self.limit = time.monotonic() + LIMIT

    @property
    def measured(self) -> list[str]:
        """What was measured, in order."""
        return self.diary.read_text().splitlines() if self.diary.exists() else []

    def goes_on(self) -> bool:
        """Wait a moment; return whether the sweep is still running."""
        assert time.monotonic() < self.limit, f"not done after {LIMIT:g} s:\n{self.output.read_text()}"
        time.sleep(0.1)
        return self.process.poll() is None


def seen_in_arguments(words: list[str]) -> list[str]:
    """Return the processes among whose arguments one of the words is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode("latin1")
        except OSError:  # gone meanwhile
            continue
        if any(word in arguments for word in words):
            found.append(arguments.replace("\0", " "))
    return found


def seen_in_files(folder: Path, words: list[str]) -> list[str]:
    """Return the files in which one of the words is."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(word.encode() in path.read_bytes() for word in words)]


def stored(url: str) -> Counter[tuple[float, int]]:
    """Return how many completed trials the storage has of each point."""
    import optuna

    trials = optuna.load_study(study_name="slow", storage=url).get_trials()
    done = [t.user_attrs["point"] for t in trials if t.state == optuna.trial.TrialState.COMPLETE]
    return Counter((point["x"], point["seed"]) for point in done)


def restarted(
    server: Server, url: str, folder: Path, words: list[str], options: argparse.Namespace
) -> list[str]:
    """Sweep while the server is restarted twice; return what is wrong."""
    sweep = Sweep(url, folder, options.points, options.workers)
    begin = time.monotonic()
    moments = [(options.points // 4, "fast"), (options.points // 2, "immediate")]
    wrong: list[str] = []
    while sweep.goes_on():
        wrong += seen_in_arguments(words)
        if moments and len(sweep.measured) >= moments[0][0]:
            mode = moments.pop(0)[1]
            server.stop(mode)
            print(f"{time.monotonic() - begin:5.1f} s: {len(sweep.measured)} begun; {mode} stop", flush=True)
            time.sleep(options.away)
            server.start()
            print(
                f"{time.monotonic() - begin:5.1f} s: {len(sweep.measured)} begun; started again", flush=True
            )
    print(f"{time.monotonic() - begin:5.1f} s: ended with status {sweep.process.returncode}")
    print(sweep.output.read_text())
    if sweep.process.returncode:
        wrong.append(f"status {sweep.process.returncode}")
    if moments:
        wrong.append("the sweep ended before the restarts")
    if len(sweep.measured) != options.points or len(set(sweep.measured)) != options.points:
        wrong.append(f"{len(sweep.measured)} measurements of {len(set(sweep.measured))} points")
    counts = stored(url)
    if len(counts) != options.points or set(counts.values()) != {1}:
        wrong.append(f"stored: {dict(counts)}")
    results = folder / "out" / "slow" / "results.json"
    if not results.exists() or json.loads(results.read_text())["done"] != options.points:
        wrong.append("results.json is missing or lacks points")
    wrong += [
        f"{word} is in the output" for word in ("Traceback", "[SQL") if word in sweep.output.read_text()
    ]
    return wrong


def refused(url: str, folder: Path) -> list[str]:
    """Sweep with a password that the server does not take; return what is wrong."""
    sweep = Sweep(url, folder, 2, 2)
    while sweep.goes_on():
        pass
    said = sweep.output.read_text()
    print(f"with a wrong password, status {sweep.process.returncode}: {said}")
    return [] if sweep.process.returncode == 1 and said.count("\n") == 1 else ["not refused with one line"]


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest where there are several."""
    on_path = shutil.which("pg_ctl")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda p: float(p.parts[-3]))
    return Path(on_path).resolve().parent if on_path else found[-1].parent if found else None


def main() -> None:
    """Sweep, restart, look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--away", type=float, default=5.0, help="seconds for which the server is away")
    parser.add_argument("--driver", choices=DRIVERS)
    options = parser.parse_args()
    programs = find_programs()
    installed = [name for name in DRIVERS if importlib.util.find_spec(name)]
    if programs is None or not installed or (options.driver and options.driver not in installed):
        missing = (
            "PostgreSQL" if programs is None else f"the driver ({options.driver or ' or '.join(DRIVERS)})"
        )
        print(f"skipped: {missing} is not installed")
        return
    driver = options.driver or installed[0]
    password, another = (f"{secrets.token_hex(6)}/@{secrets.token_hex(6)}" for _ in range(2))
    words = [piece for one in (password, another) for piece in one.split("/@")]
    with tempfile.TemporaryDirectory() as work:
        Path(work).chmod(0o755)  # the server's user passes through
        (Path(work) / "server").mkdir()
        with running(programs, Path(work) / "server", password) as server:
            url = f"postgresql+{driver}://ann:{{}}@127.0.0.1:{server.port}/postgres"
            right, bad = (url.format(quote(one, safe="")) for one in (password, another))
            wrong = restarted(server, right, Path(work) / "restarted", words, options)
            wrong += refused(bad, Path(work) / "refused")
            for folder in ("restarted", "refused"):
                wrong += [f"password in {path}" for path in seen_in_files(Path(work) / folder, words)]
    print("WRONG: " + "; ".join(wrong) if wrong else f"all is well with {driver}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
