"""Lookup of the file system of a path in the kernel's list of mounts; see proc_pid_mountinfo(5)."""

import re
from dataclasses import dataclass
from pathlib import Path

REMOTE_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "fuse.ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs"}
    | {"lustre", "afs", "9p", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"}
)
MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Mount:
    """A mounted file system."""

    point: Path
    type: str  # "ext4", "nfs4", …


def find_mount(path: Path, mountinfo: str | None = None) -> Mount:
    """Return the mount that contains `path`. `mountinfo`: replaces the kernel's list, in the same format."""
    path = path.resolve()
    unknown = Mount(Path("/"), "of unknown type")
    try:
        lines = (MOUNTINFO.read_text() if mountinfo is None else mountinfo).splitlines()
    except OSError:
        return unknown
    mounts = [Mount(Path(_unescape(line.split()[4])), line.partition(" - ")[2].split()[0]) for line in lines]
    parents = [mount for mount in mounts if path.is_relative_to(mount.point)]
    # The longest matching mount point is the nearest. The last of several mounts at the same point hides the others.
    return max(reversed(parents), key=lambda mount: len(mount.point.parts), default=unknown)


def _unescape(point: str) -> str:
    """Replace octal escapes, which the kernel writes for spaces and similar characters."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
