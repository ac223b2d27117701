"""Workloads on files that have to be fetched. Each measurement has a lower directory that was just imported."""

import os
import shutil
import subprocess
import time

from figures import median
from machine import drop_caches
from subjects import PassHSM, Subject
from workloads import Driver, Figure, Workload, make_source, run


class ColdWorkload(Workload):
    """`prepare` makes the files in the remote directory: those of `folder`.

    What a subject took to bring the files before they are read (`seconds_before`) is waited for too.
    """

    folder = None

    def remote(self, remotes):
        """The folder to import, and nothing else."""
        return os.path.join(remotes, self.folder)


class FirstByte(ColdWorkload):
    """The first 4 KiB of each of some files."""

    folder = "medium"

    def __init__(self, sizes):
        super().__init__("cold: first byte", sizes)

    def prepare(self, remote):
        folder = os.path.join(remote, self.folder)
        if not os.path.exists(folder):
            os.makedirs(folder)
            for number in range(20):
                with open(os.path.join(folder, f"file-{number}"), "wb") as file:
                    file.write(os.urandom(16 << 20))

    def measure(self, path, subject):
        folder = os.path.join(path, self.folder)
        times = []
        for name in sorted(os.listdir(folder)):
            start = time.monotonic()
            file = os.open(os.path.join(folder, name), os.O_RDONLY)
            os.pread(file, 4096, 0)
            times.append(time.monotonic() - start)
            os.close(file)
        return {"latency": Figure((median(times) + subject.seconds_before / len(times)) * 1e3, "ms")}


class WholeFile(ColdWorkload):
    folder = "large"

    def __init__(self, sizes):
        super().__init__("cold: whole file", sizes)

    def prepare(self, remote):
        folder = os.path.join(remote, self.folder)
        if not os.path.exists(folder):
            os.makedirs(folder)
            block = os.urandom(1 << 20)
            with open(os.path.join(folder, "file"), "wb") as file:
                for _ in range(self.sizes.cold_large >> 20):
                    file.write(block)

    def measure(self, path, subject):
        result = Driver.run("read-all", os.path.join(path, self.folder), 1)
        seconds = result["seconds"] + subject.seconds_before
        return {"throughput": Figure(result["bytes"] / seconds / 2**20, "MiB/s", True)}


class ColdRandom(WholeFile):
    def __init__(self, sizes):
        super().__init__(sizes)
        self.name = "cold: random 4 KiB of a large file"

    def measure(self, path, subject):
        result = Driver.run("read-at", os.path.join(path, self.folder, "file"), 50, 4096, 1, 7)
        # Where a file is filled when it is opened, its reads are warm: the open belongs to them.
        opened = result["open_seconds"] + subject.seconds_before
        return {
            "open": Figure(opened * 1e3, "ms"), "read": Figure(result["median_seconds"] * 1e3, "ms"),
            "open and 50 reads": Figure((opened + 50 / result["operations_per_second"]) * 1e3, "ms"),
        }


class SmallFiles(ColdWorkload):
    folder = "small"

    def __init__(self, sizes):
        super().__init__("cold: small files, 16 readers", sizes)

    def prepare(self, remote):
        folder = os.path.join(remote, self.folder)
        if not os.path.exists(folder):
            os.makedirs(folder)
            for number in range(self.sizes.small):
                with open(os.path.join(folder, f"file-{number}"), "wb") as file:
                    file.write(os.urandom(16384))

    def measure(self, path, subject):
        result = Driver.run("read-all", os.path.join(path, self.folder), 16)
        return {"files": Figure(result["files"] / (result["seconds"] + subject.seconds_before), "1/s", True)}


class Grep(ColdWorkload):
    folder = "source"

    def __init__(self, sizes):
        super().__init__("cold: grep -r", sizes)

    def prepare(self, remote):
        make_source(os.path.join(remote, self.folder), self.sizes.source)

    def measure(self, path, subject):
        start = time.monotonic()
        subprocess.run(["grep", "-rc", "not to be found", os.path.join(path, self.folder)], stdout=subprocess.DEVNULL)
        return {"time": Figure(time.monotonic() - start + subject.seconds_before, "s")}


class Copy(Subject):
    """The baseline of fills: cp(1) copies the same bytes into a lower directory, and they are read there."""

    name = "cp, then native"
    absence = None

    def start(self, remote, lower, mountpoint):
        self.remote, self.lower = remote, lower
        return lower

    def before(self, workload):
        start = time.monotonic()
        run(["cp", "-a", os.path.join(self.remote, workload.folder), self.lower])
        self.seconds_before = time.monotonic() - start

    def stop(self):
        pass


class ColdMount(Subject):
    """A mount of PassHSM over a directory that was just imported."""

    def __init__(self, name, program, options=(), granule="64K"):
        self.mount, self.granule = PassHSM(name, program, options), granule
        self.name, self.absence, self.program = name, self.mount.absence, program

    @property
    def process(self):
        return self.mount.process

    def start(self, remote, lower, mountpoint):
        run([self.program, "import", "--quiet", "--granule", self.granule, remote, lower])
        return self.mount.start(lower, mountpoint)

    def stop(self):
        self.mount.stop()


def empty(directory):
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    drop_caches()


def on_cold(bench, subject, remote, body):
    """Calls `body` with the path of a mount over a directory that was just imported, and returns its result."""
    empty(bench.cold_lower)
    path = subject.start(remote, bench.cold_lower, bench.mount)
    try:
        return body(path)
    finally:
        subject.stop()


def cold_workloads(sizes):
    return [FirstByte(sizes), WholeFile(sizes), ColdRandom(sizes), SmallFiles(sizes), Grep(sizes)]


def remotes(is_quick):
    """The simulated delays and bandwidths of the remote, by name."""
    some = {"directory": "latency=0ms", "20 ms": "latency=20ms"}
    return some if is_quick else {**some, "5 ms": "latency=5ms", "20 ms, 100 MB/s": "latency=20ms,bandwidth=100M"}


def cold_subjects(program, remote, options=(), granule="64K", suffix=""):
    """Both front ends, with `options`."""
    options = ["--simulate", remote, *options]
    fanotify = ["--frontend", "fanotify", "--allow-holes", *options]
    return [ColdMount("PassHSM FUSE" + suffix, program, options, granule),
            ColdMount("PassHSM fanotify" + suffix, program, fanotify, granule)]
