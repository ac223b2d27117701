"""The subjects of the comparison. Each shows the lower directory at a path, one at a time."""

import os
import shutil
import signal
import subprocess
import time

from machine import Process, output
from workloads import Fio


def is_mounted(path):
    with open("/proc/self/mounts") as mounts:
        return any(line.split()[1] == path for line in mounts)


def unmount(path):
    for attempt in range(50):
        if not is_mounted(path):
            return
        subprocess.run(["umount", path], capture_output=True)
        time.sleep(0.1)
    subprocess.run(["umount", "-l", path], capture_output=True)


class Subject:
    # It is slow, and only gives the scale.
    is_scale = False
    # Files are opened with O_DIRECT, so that each read and write is a request of its own.
    opens_direct = False
    process = None
    # The seconds that it took to bring the files that are read afterwards.
    seconds_before = 0.0

    def takes(self, workload):
        return True

    def wants(self, round_number):
        """Whether it takes part in a round; 0 is the warm-up."""
        return not self.is_scale or round_number in (1, 2, 3)

    def before(self, workload):
        """Work that is measured together with the workload, and comes before it."""


def tree(lower):
    """Where the files of a lower directory are."""
    return os.path.join(lower, ".passhsm", "tree")


class Native(Subject):
    """The lower directory's files themselves."""

    def __init__(self, name="native"):
        self.name = name
        self.absence = None

    def start(self, lower, mountpoint):
        return tree(lower)

    def stop(self):
        pass


class Mounted(Subject):
    """A file system over the lower directory's files, served by a process."""

    def __init__(self, name, program):
        self.name = name
        self.program = program
        self.absence = None if shutil.which(program) else f"{os.path.basename(program)} is not installed"
        self.process = None
        self.mountpoint = None
        self.child = None

    def below(self, lower):
        """The source argument of the mount."""
        return tree(lower)

    def command(self, lower, mountpoint):
        raise NotImplementedError

    def start(self, lower, mountpoint):
        self.mountpoint = mountpoint
        self.child = subprocess.Popen(
            self.command(self.below(lower), mountpoint), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for attempt in range(200):
            if is_mounted(mountpoint):
                break
            if self.child.poll() is not None:
                raise RuntimeError(f"{self.name}: {self.child.stderr.read().strip()}")
            time.sleep(0.05)
        else:
            self.stop()
            raise RuntimeError(f"{self.name} does not mount")
        self.process = Process(self.child.pid)
        return mountpoint

    def stop(self):
        if self.mountpoint:
            unmount(self.mountpoint)
        if self.child:
            try:
                self.child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.child.send_signal(signal.SIGKILL)
                self.child.wait()
        self.child = self.process = self.mountpoint = None


class PassHSM(Mounted):
    """One of PassHSM's front ends, with the mount's options."""

    def __init__(self, name, program, options=()):
        super().__init__(name, program)
        self.options = list(options)

    def below(self, lower):
        return lower

    def command(self, lower, mountpoint):
        return [self.program, "mount", lower, mountpoint, "--foreground", *self.options]


class Direct(PassHSM):
    """Without passthrough, and without the kernel's page cache: what it takes when each read goes to the daemon."""

    opens_direct = True

    def takes(self, workload):
        return isinstance(workload, Fio)


class PassthroughLL(Mounted):
    """libfuse's own example, compiled from the source that its package ships."""

    SOURCE = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c"

    def __init__(self, folder):
        program = os.path.join(folder, "passthrough_ll")
        if not os.path.exists(program) and os.path.exists(self.SOURCE) and shutil.which("gcc"):
            flags = output("pkg-config", "--cflags", "--libs", "fuse3").split()
            subprocess.run(["gcc", "-O2", "-w", self.SOURCE, "-o", program, *flags], check=True)
        super().__init__("libfuse passthrough_ll", program)
        if self.absence:
            self.absence = "libfuse's example passthrough_ll.c is not there, or does not compile"

    def command(self, lower, mountpoint):
        return [self.program, "-f", "-o", f"source={lower},cache=auto,default_permissions,allow_other", mountpoint]


class MergerFS(Mounted):
    is_scale = True

    def __init__(self):
        super().__init__("mergerfs", "mergerfs")

    def command(self, lower, mountpoint):
        return ["mergerfs", "-f", "-o", "cache.files=auto-full,allow_other", lower, mountpoint]


class BindFS(Mounted):
    is_scale = True

    def __init__(self):
        super().__init__("bindfs", "bindfs")

    def command(self, lower, mountpoint):
        return ["bindfs", "-f", lower, mountpoint]


class Rclone(Mounted):
    """rclone mount with its whole VFS cache, over the lower directory."""

    is_scale = True

    def __init__(self, program, cache):
        super().__init__("rclone mount", program)
        self.cache = cache

    def command(self, lower, mountpoint):
        return [self.program, "mount", lower, mountpoint, "--vfs-cache-mode", "full", "--cache-dir", self.cache,
                "--config", "/dev/null", "--allow-other"]


def fanotify(kind, program, options=(), name="PassHSM fanotify"):
    return kind(name, program, ["--frontend", "fanotify", "--allow-holes", *options])


def all_subjects(program, rclone, folder):
    """Native first, and once more, so that a difference of nothing is measured too."""
    return [
        Native(), Native("native, again"),
        PassHSM("PassHSM FUSE passthrough", program),
        PassHSM("PassHSM FUSE cached", program, ["--no-passthrough"]),
        Direct("PassHSM FUSE direct", program, ["--no-passthrough"]),
        fanotify(PassHSM, program),
        fanotify(PassHSM, program, ["--ignore-nothing"], "PassHSM fanotify, no ignore marks"),
        PassthroughLL(folder), MergerFS(), BindFS(), Rclone(rclone, os.path.join(folder, "rclone-cache")),
    ]


OTHER = ", other build"


def two_builds(program, other):
    """This build and another one, with each front end."""
    return [subject for path, suffix in ((program, ""), (other, OTHER)) for subject in (
        PassHSM("PassHSM FUSE passthrough" + suffix, path), fanotify(PassHSM, path, name="PassHSM fanotify" + suffix))]
