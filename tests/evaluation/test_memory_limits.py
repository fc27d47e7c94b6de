"""The least of all limits, as the kernel, the control groups and the shell tell them."""

import json
import subprocess
import sys

import pytest

from tithe.evaluation import give_back_memory, memory_left
from tithe.evaluation.memory import resident_bytes
from tithe.evaluation.memory_limits import _control_groups


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def listed(tmp_path, *lines):
    path = tmp_path / "listed"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


class TestControlGroups:
    def test_of_version_2_and_of_all_groups_above(self, tmp_path):
        root = tmp_path / "cgroup"
        write(root, memory__stat="inactive_file 0")
        write(root / "pod", memory__max=1000, memory__current=900, memory__stat="anon 5\ninactive_file 300")
        write(root / "pod" / "run", memory__max="max", memory__current=100)
        found = list(_control_groups(root, listed(tmp_path, "0::/pod/run")))
        assert [left.bytes for left in found] == [1000 - 900 + 300]  # page cache that is given up on demand is free
        assert found[0].source == "`memory.max` of the control group /pod"

    def test_of_version_1(self, tmp_path):
        root = tmp_path / "cgroup"
        write(root / "memory" / "a", memory__limit_in_bytes=500, memory__usage_in_bytes=450)
        write(root / "memory" / "a", memory__stat="total_inactive_file 20")
        write(root / "memory", memory__limit_in_bytes=2000, memory__usage_in_bytes=1990)
        lines = ["9:name=systemd:/", "4:memory:/a", "3:cpu,cpuacct:/a"]
        found = list(_control_groups(root, listed(tmp_path, *lines)))
        assert [left.bytes for left in found] == [70, 10]
        assert [left.source.split()[-1] for left in found] == ["/a", "/"]

    def test_none(self, tmp_path):
        assert list(_control_groups(tmp_path, tmp_path / "absent")) == []
        assert list(_control_groups(tmp_path, listed(tmp_path, "0::/"))) == []


def test_a_limit_that_is_given_counts_what_the_process_holds():
    left = memory_left(limit=resident_bytes() + 100 * 2**20)
    assert left.source == "the limit given"
    assert left.bytes == pytest.approx(100 * 2**20, abs=20 * 2**20)
    assert memory_left(limit=1).bytes == 0


LIMITED = """
import json, resource
from tithe.evaluation import memory_left
import psutil
limit = psutil.Process().memory_info().vms + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
first = memory_left()
block = bytearray(100 * 2**20)
print(json.dumps([first.bytes, first.source, first.of_addresses, memory_left().bytes]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space of the process is read from /proc")
def test_of_the_shell():
    found = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    first, source, of_addresses, after = json.loads(found.stdout.splitlines()[-1])
    assert (source, of_addresses) == ("`ulimit -v`", True)
    assert first == pytest.approx(300 * 2**20, abs=8 * 2**20)
    assert first - after == pytest.approx(100 * 2**20, abs=8 * 2**20)


@pytest.mark.skipif(sys.platform != "linux", reason="of the GNU C library")
def test_freed_memory_goes_back_to_the_system():
    blocks = [bytes(1000) + b"x" for _ in range(100_000)]  # too small for maps of their own
    held = resident_bytes()
    last = blocks[-1]  # on top of the heap: nothing below it is returned by itself
    del blocks
    give_back_memory()
    assert resident_bytes() < held - 60 * 2**20
    assert last
