"""A separate file system for the measured files, in an image on a loop device."""

import os
import subprocess

MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}


class Disk:
    """Mounted at `path` within, and gone afterwards.

    By default XFS: ext4 does not use the inodes again that were freed within the last minute, and looks at each of them
    whenever a file is made. After some thousand removals that is all that is measured.
    """

    def __init__(self, kind, path, gibibytes=24):
        self.kind, self.path, self.image, self.gibibytes = kind, path, path + ".image", gibibytes

    def __enter__(self):
        os.makedirs(self.path, exist_ok=True)
        with open(self.image, "wb") as file:
            file.truncate(self.gibibytes << 30)
        try:
            subprocess.run([*MAKE[self.kind], self.image], check=True, stdout=subprocess.DEVNULL)
            device = subprocess.run(
                ["losetup", "--find", "--show", "--direct-io=on", self.image], check=True, capture_output=True,
                text=True).stdout.strip()
            try:
                subprocess.run(["mount", device, self.path], check=True)
            finally:
                # It goes with the mount.
                subprocess.run(["losetup", "--detach", device], check=True)
        except BaseException:
            os.unlink(self.image)
            raise
        return self

    def __exit__(self, *exception):
        subprocess.run(["umount", self.path])
        os.unlink(self.image)
