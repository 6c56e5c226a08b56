import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.compute import cpu_threads
from common.compute.cpu_threads import (
    CALM_PERIODS,
    OURS,
    SPINS,
    SpinWatch,
    available_cores,
    quota_cores,
    seconds_waited,
    thread_settings,
    threads_each,
)

ROOT = Path(__file__).parents[3]
FREE_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", OURS)
gnu_openmp_on_linux = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists() or available_cores() < 2, reason="needs Linux and two cores"
)


def run(script: str, **variables: str) -> str:
    """Output of a new interpreter with none of this module's variables but those given."""
    environment = {name: value for name, value in os.environ.items() if name not in FREE_VARIABLES} | variables
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def test_without_a_users_choice_spins_and_threads_are_set() -> None:
    threads = str(available_cores())
    assert thread_settings({}) == {"GOMP_SPINCOUNT": SPINS, "OMP_NUM_THREADS": threads, OURS: threads}


def test_a_users_choice_wins() -> None:
    assert "GOMP_SPINCOUNT" not in thread_settings({"OMP_WAIT_POLICY": "ACTIVE"})
    assert "GOMP_SPINCOUNT" not in thread_settings({"GOMP_SPINCOUNT": "5"})
    assert thread_settings({"OMP_NUM_THREADS": "7"}) == {"GOMP_SPINCOUNT": SPINS}


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_threads, "available_cores", lambda: 8)
    assert [thread_settings({}, processes)["OMP_NUM_THREADS"] for processes in (1, 2, 3, 20)] == ["8", "4", "2", "1"]


def test_ranks_share_the_cores_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_threads, "available_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv(OURS, "8")
    assert threads_each(4) == 2
    monkeypatch.delenv(OURS)
    assert threads_each(4) is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads_each(16) == 1


@pytest.mark.parametrize(("text", "cores"), [("150000 100000", 1.5), ("max 100000", None), ("", None), ("x y", None)])
def test_a_quota_of_version_2_is_read(tmp_path: Path, text: str, cores: float | None) -> None:
    write(tmp_path / "groups", "0::/a/b\n")
    write(tmp_path / "root/a/b/cpu.max", text)
    assert quota_cores(tmp_path / "root", tmp_path / "groups") == cores


@pytest.mark.parametrize(("quota", "cores"), [("200000", 2.0), ("-1", None)])
def test_a_quota_of_version_1_is_read(tmp_path: Path, quota: str, cores: float | None) -> None:
    write(tmp_path / "groups", "5:memory:/m\n4:cpu,cpuacct:/a\n0::/\n")
    write(tmp_path / "root/cpu,cpuacct/a/cpu.cfs_quota_us", quota + "\n")
    write(tmp_path / "root/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n")
    assert quota_cores(tmp_path / "root", tmp_path / "groups") == cores


def test_the_lowest_quota_of_all_parents_holds(tmp_path: Path) -> None:
    write(tmp_path / "groups", "0::/a/b\n")
    write(tmp_path / "root/a/cpu.max", "100000 100000")
    write(tmp_path / "root/a/b/cpu.max", "400000 100000")
    assert quota_cores(tmp_path / "root", tmp_path / "groups") == 1


def test_in_a_container_the_mounted_quota_is_its_own(tmp_path: Path) -> None:
    write(tmp_path / "groups", "0::/path/of/the/host\n")
    write(tmp_path / "root/cpu.max", "300000 100000")
    assert quota_cores(tmp_path / "root", tmp_path / "groups") == 3


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota_cores(tmp_path, tmp_path / "absent") is None


def test_a_quota_lowers_the_cores_and_leaves_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    found = []
    for quota in (None, 0.5, 2.9, 64.0):
        monkeypatch.setattr(cpu_threads, "quota_cores", lambda quota=quota: quota)
        found.append(available_cores())
    assert found == [4, 1, 2, 4]


def test_the_module_loads_no_pytorch() -> None:
    assert run("import sys, common.compute.cpu_threads; print('torch' in sys.modules)") == "False\n"


def test_a_command_has_the_settings_before_pytorch_is_loaded() -> None:
    script = """
import os, sys
class Look:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ["GOMP_SPINCOUNT"], os.environ["OMP_NUM_THREADS"])
            os._exit(0)
sys.stdout.reconfigure(line_buffering=True)
sys.meta_path.insert(0, Look())
from main import main
main(["validate", "--config", "configs/quickstart.yaml"])
"""
    assert run(script) == f"{SPINS} {available_cores()}\n"
    assert run(script, GOMP_SPINCOUNT="5", OMP_NUM_THREADS="1") == "5 1\n"


@pytest.mark.end_to_end
def test_a_process_that_a_command_starts_has_the_settings() -> None:
    script = f"""
import json, multiprocessing, os, subprocess, sys
from common.compute.cpu_threads import thread_settings
os.environ.update(thread_settings(os.environ))
child = "import json, os; print(json.dumps([os.environ.get(name) for name in {FREE_VARIABLES}]))"
subprocess.run([sys.executable, "-c", child], check=True)
"""
    threads = str(available_cores())
    assert json.loads(run(script)) == [None, SPINS, threads, threads]


class CountedTeam:
    """In place of threads."""

    alive = 0

    def __init__(self, openmp: object, threads: int) -> None:
        CountedTeam.alive += 1
        self.threads = threads

    def end(self) -> None:
        CountedTeam.alive -= 1


@gnu_openmp_on_linux
def test_threads_sleep_while_they_wait_for_cores_and_spin_again_when_it_is_calm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu_threads, "SleepingTeam", CountedTeam)
    monkeypatch.setattr(cpu_threads, "PERIOD", 1000)
    watch = SpinWatch(ctypes.CDLL(None), len(os.sched_getaffinity(0)))
    watch.look(0.04)
    assert watch.team is None
    watch.look(0.06)
    assert watch.team is not None
    assert watch.team.threads == 2
    for _ in range(CALM_PERIODS - 1):
        watch.look(0.0)
    watch.look(0.03)
    assert watch.team is not None
    for _ in range(CALM_PERIODS):
        watch.look(0.0)
    assert watch.team is None
    assert CountedTeam.alive == 0
    watch.look(1.0)
    watch.end()
    assert CountedTeam.alive == 0


SPINNING = """
import os, time
from pathlib import Path
from common.compute import cpu_threads
os.environ["GOMP_SPINCOUNT"] = "300000"
import torch
openmp = cpu_threads.gnu_openmp()
if openmp is None:
    print("another")
    raise SystemExit
torch.set_num_threads(len(os.sched_getaffinity(0)))
numbers = torch.ones(200_000)

def seconds_of_others():
    total = 0
    for folder in Path("/proc/self/task").iterdir():
        try:
            total += int((folder / "schedstat").read_text().split()[0]) * (folder.name != str(os.getpid()))
        except OSError:
            pass  # a thread of a team that has just ended
    return total / 1e9

def spun():
    numbers.add_(1)
    before = seconds_of_others()
    for _ in range(10):
        numbers.add_(1)
        time.sleep(0.05)
    return (seconds_of_others() - before) / 10

found = [spun()]
team = cpu_threads.SleepingTeam(openmp, 2)
found.append(spun())
team.end()
found.append(spun())
print(*found)
"""


@pytest.mark.end_to_end
@gnu_openmp_on_linux
def test_a_sleeping_team_ends_the_spin_of_all_threads_and_its_end_brings_it_back() -> None:
    """In seconds that the other threads compute for each product with a long pause behind it."""
    found = run(SPINNING)
    if found == "another\n":
        pytest.skip("PyTorch has another OpenMP")
    before, during, after = map(float, found.split())
    assert during < before / 3
    assert during < after / 3


WATCHED = """
import os
from common.compute import cpu_threads
os.environ.update(cpu_threads.thread_settings(os.environ))
import torch
watch = cpu_threads.watch_spin(2)
print(watch is not None, cpu_threads.watch_spin(2) is watch, cpu_threads.watch_spin(1) is None)
"""


@pytest.mark.end_to_end
@gnu_openmp_on_linux
def test_a_process_has_one_watch_and_none_for_one_thread() -> None:
    found = run(WATCHED)
    if found.startswith("False"):
        pytest.skip("PyTorch has another OpenMP")
    assert found == "True True True\n"


@pytest.mark.end_to_end
@pytest.mark.parametrize("variables", [{"OMP_WAIT_POLICY": "PASSIVE"}, {"GOMP_SPINCOUNT": "300000"}])
def test_a_users_policy_is_not_watched(variables: dict[str, str]) -> None:
    assert run(WATCHED, **variables) == "False True True\n"


@pytest.mark.end_to_end
@gnu_openmp_on_linux
def test_the_time_that_threads_wait_grows_beside_busy_processes() -> None:
    cores = sorted(os.sched_getaffinity(0))
    script = f"import os\nos.sched_setaffinity(0, {{{cores[0]}}})\nprint(flush=True)\nwhile True: pass"
    busy = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert busy.stdout is not None
        busy.stdout.readline()
        os.sched_setaffinity(0, {cores[0]})
        before = seconds_waited()
        assert before is not None
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass
        after = seconds_waited()
    finally:
        os.sched_setaffinity(0, set(cores))
        busy.kill()
        busy.communicate()
    assert after is not None
    assert after - before > 0.1
