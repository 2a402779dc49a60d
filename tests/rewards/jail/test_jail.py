"""Programs behind bars: none gets out, none stays, none takes more than it may, and none is right that is wrong."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from posttrain.errors import SetupError
from posttrain.rewards.isolated.child import ChildDied
from posttrain.rewards.isolated.jail import levels
from posttrain.rewards.isolated.jail.jail import Jail
from posttrain.rewards.isolated.jail.kernel import Bounds
from posttrain.rewards.isolated.jail.levels import LEVELS, offered
from rewards.jail.hostile import CHEATS, POWERS, PROLOGUE, READS, RIGHT, SENDS, STAYS, TAKES, TESTS, WRITES

BOUNDS = Bounds(seconds=1, memory=128)
HERE = [level for level in LEVELS[:-1] if not offered()[level]]
SLOW = ("time, and a handler", "recursion", "the disk")
FIRST = [pytest.param(level, marks=[pytest.mark.system] * (place > 0)) for place, level in enumerate(HERE)]
ESCAPES = {**READS, **WRITES, **SENDS, **POWERS, **STAYS}


@pytest.fixture(scope="module", params=FIRST)
def jail(request: pytest.FixtureRequest) -> Iterator[Jail]:
    made = Jail(request.param, BOUNDS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A secret, and who listens."""
    home, name = tmp_path_factory.mktemp("home"), f"posttrain-{os.getpid()}"
    (home / "secret").write_text("hunter2")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as file,
    ):
        unix.bind(f"\0{name}")
        file.bind(f"{home}/listens")
        unix.listen()
        file.listen()
        yield {"HOME": str(home), "NAME": name, "PORT": str(tcp.getsockname()[1]), "OUTSIDE": str(os.getpid())}


def servers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "jail.server" in " ".join(one.cmdline())]


def told(program: str, outside: Mapping[str, str]) -> str:
    for word, value in outside.items():
        program = program.replace(f"<{word}>", value)
    return PROLOGUE + program


@pytest.fixture
def left(outside: Mapping[str, str], jail: Jail) -> Iterator[None]:
    """Afterwards all is as it was."""
    home = Path(outside["HOME"])
    before = (home.stat().st_mode, sorted(home.iterdir()), (home / "secret").stat().st_mtime)
    yield
    assert (home.stat().st_mode, sorted(home.iterdir()), (home / "secret").stat().st_mtime) == before
    assert (home / "secret").read_text() == "hunter2" and not Path("/tmp/written").exists()
    assert servers() and all(not one.children(recursive=True) for one in servers())


@pytest.mark.parametrize("name", ESCAPES)
def test_no_program_gets_out(name: str, jail: Jail, outside: Mapping[str, str], left: None) -> None:
    ran = jail.run(told(ESCAPES[name], outside))
    assert "GOT" not in ran.out, ran
    assert ran.ended in ("exit", "time", "output") and "NameError" not in ran.err and "SyntaxError" not in ran.err, ran


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.system] * (one in SLOW)) for one in TAKES])
def test_no_program_takes_more_than_it_may(name: str, jail: Jail, left: None) -> None:
    program, ends = TAKES[name]
    ran = jail.run(PROLOGUE + program)
    assert ran.ended in ends.split() and "GOT" not in ran.out, ran
    assert len(ran.out) + len(ran.err) < 2**18


def test_without_bars_the_same_programs_have_their_way(outside: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="--allow-unjailed-code"):
        Jail("rlimits", BOUNDS)
    monkeypatch.setattr(levels, "_unjailed", True)
    jail = Jail("rlimits", BOUNDS)
    for name in ("the users", "the home folder", "by TCP", "to a name", "forks", "other processes"):
        ran = jail.run(told(ESCAPES[name], outside))
        assert "GOT" in ran.out, (name, ran)
    jail.close()


@pytest.mark.parametrize("name", CHEATS)
def test_no_wrong_program_is_right(name: str, jail: Jail, left: None) -> None:
    said = jail.check(CHEATS[name], TESTS)
    assert "bad" not in said and said.get("outcomes") != ["passed", "passed"], said


def test_right_programs_are_right(jail: Jail) -> None:
    said = jail.check(RIGHT, TESTS)
    assert said["outcomes"] == ["passed", "passed"] and not said["late"], said


def test_a_program_leaves_nothing_for_the_next(jail: Jail) -> None:
    for place in ("left", "/tmp/left", "/dev/shm/left"):
        jail.run(f"open('{place}', 'w').write('34')")
        ran = jail.run(f"import os\nprint(os.path.exists('{place}'))")
        assert ran.out == "False\n", ran


@pytest.mark.parametrize("times", [10, pytest.param(200, marks=pytest.mark.system)])
def test_programs_in_turn_leave_no_zombie_and_no_descriptor(times: int, jail: Jail, left: None) -> None:
    jail.run("")
    (server,) = servers()
    before = server.num_fds(), server.memory_info().rss
    for number in range(times):
        assert jail.run(f"print({number})").out == f"{number}\n"
    assert server.num_fds() == before[0] and server.memory_info().rss < before[1] + 2**22


@pytest.mark.parametrize("times", [1, pytest.param(16, marks=pytest.mark.system)])
def test_a_program_ends_with_who_started_it(times: int, jail: Jail) -> None:
    """Also where that ends while the program begins: as soon as it is there, or some milliseconds later."""
    for number in range(times):
        jail.run("")
        (server,) = servers()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(jail.run, "import time\ntime.sleep(600)")
            while not (began := server.children(recursive=True)):
                pass
            time.sleep(number % 8 * 0.004)
            began = server.children(recursive=True) or began
            server.kill()
            with pytest.raises(ChildDied):
                asked.result(timeout=60)
        _, alive = psutil.wait_procs(began, timeout=30)
        assert not alive
