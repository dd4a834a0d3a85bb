"""What kind of disk a path lies on, as the kernel's list of mounts says."""

import re
from dataclasses import dataclass
from pathlib import Path

REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "fuse.ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs"}
    | {"lustre", "afs", "9p", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"}
)
MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Mount:
    point: Path
    kind: str  # "ext4", "nfs4", …


def of(path: Path, mounts: str | None = None) -> Mount:
    """The mount that `path` lies on. `mounts`: another text than the kernel's, in its format (proc(5))."""
    path = path.resolve()
    try:
        lines = (MOUNTS.read_text() if mounts is None else mounts).splitlines()
    except OSError:
        return Mount(Path("/"), "of unknown kind")
    found = [Mount(Path(_plain(line.split()[4])), line.partition(" - ")[2].split()[0]) for line in lines]
    above = [mount for mount in found if path.is_relative_to(mount.point)]
    # The longest is the nearest; of several at one place the last covers the others.
    return max(reversed(above), key=lambda mount: len(mount.point.parts), default=Mount(Path("/"), "of unknown kind"))


def _plain(point: str) -> str:
    """Spaces and the like stand in the list as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
