"""The machine of the measurements: its properties, and its other work."""

import glob
import os
import platform
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


def read(path, default=""):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return default


def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def describe(directory, repository):
    model = [l.split(":", 1)[1].strip() for l in read("/proc/cpuinfo").splitlines() if l.startswith("model name")]
    memory = int(read("/proc/meminfo").split()[1]) // 1024
    governors = {read(p).strip() for p in glob.glob("/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")}
    return {
        "kernel": platform.release(),
        "cpu": model[0] if model else platform.machine(),
        "processors": os.cpu_count(),
        "memory_mib": memory,
        "governor": ", ".join(sorted(governors)) or "unknown (virtual machine)",
        "file_system": output("df", "--output=fstype", directory).rpartition("\n")[2],
        "libfuse": output("pkg-config", "--modversion", "fuse3"),
        "commit": output("git", "-C", repository, "rev-parse", "--short", "HEAD"),
        "is_changed": bool(output("git", "-C", repository, "status", "--porcelain", "--untracked-files=no")),
        "load_before": os.getloadavg()[0],
    }


def frequency_mhz():
    values = [float(l.split(":")[1]) for l in read("/proc/cpuinfo").splitlines() if l.startswith("cpu MHz")]
    return sum(values) / len(values) if values else 0


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def busy_seconds():
    """CPU seconds of the whole machine that were not idle, since it started."""
    fields = [int(f) for f in read("/proc/stat").split("\n", 1)[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / TICKS


class Process:
    """The resources that a running process has used so far."""

    def __init__(self, pid):
        self.pid = pid

    def cpu_seconds(self):
        fields = read(f"/proc/{self.pid}/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0

    def switches(self):
        return sum(
            int(line.split()[1])
            for path in glob.glob(f"/proc/{self.pid}/task/*/status")
            for line in read(path).splitlines()
            if "ctxt_switches" in line
        )

    def memory_kib(self, field="VmRSS"):
        for line in read(f"/proc/{self.pid}/status").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        return 0


class Noise:
    """The part of the machine that others used while something was measured."""

    def __init__(self):
        self.shares = []

    def measure(self, body, own_seconds):
        """Calls `body`; `own_seconds` answers the CPU seconds that are the measurement's own, so far."""
        start, busy, own = time.monotonic(), busy_seconds(), own_seconds()
        result = body()
        elapsed = time.monotonic() - start
        # Shorter ones say nothing: the clock of CPU time ticks a hundred times a second.
        if elapsed > 0.2:
            others = max(0, busy_seconds() - busy - (own_seconds() - own))
            self.shares.append(others / elapsed / os.cpu_count())
        return result

    def share(self):
        return sorted(self.shares)[len(self.shares) // 2] if self.shares else 0
