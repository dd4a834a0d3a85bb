"""Invariants of a site after any of its processes was killed: nothing incomplete and nothing left behind."""

import hashlib
import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.site import Site, wait_until

_hashed: dict[tuple[Path, int], str] = {}  # blobs never change, so each is read once


def assert_whole(site: Site) -> None:
    """Assert every rule below within a few seconds. The supervisor and the watch check every two."""
    for rule in (leftovers, builders, unsupervised_programs, sockets, damage):
        _assert_empty(site, rule)


def _assert_empty(site: Site, rule: Callable[[Site], list[str]]) -> None:
    found: list[str] = []

    def clean() -> bool:
        found[:] = rule(site)
        return not found

    try:
        wait_until(clean, 15, rule.__name__)
    except AssertionError:
        raise AssertionError(f"{rule.__name__}: {found}") from None


def leftovers(site: Site) -> list[str]:
    """Return temporary files and folders of builds, the store, the routes and uv."""
    mms = site.data / "mms"
    found = [*(site.data / "tmp").glob("build-*"), *mms.glob(".*"), *mms.glob("claims/*")]
    for name in ("oci", "oci/blobs/sha256", "known", "layers", "rootfs", "routes", "cache/locks"):
        found += (mms / name).glob(".*")
    found += (mms / "cache/uv").glob(".tmp*")
    found += (site.data / "run/services").glob(".*.new")
    return [str(path) for path in found]


def builders(site: Site) -> list[str]:
    """Return processes of builds (builder, uv, compiler) that no operation needs."""
    found = []
    for process in psutil.process_iter():
        try:
            if f"{site.data}/tmp/build-" in process.environ().get("TMPDIR", ""):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


def unsupervised_programs(site: Site) -> list[str]:
    """Return scoring programs, in a sandbox or not, that the supervisor didn't start."""
    lines = [line.split() for line in site.supervisorctl("status").splitlines()]
    known = {int(line[3].rstrip(",")) for line in lines if line[1] == "RUNNING" and line[0].startswith("mms-")}
    known |= {int(site.supervisorctl("pid", line[0])) for line in lines if line[1] == "STARTING"}
    return [f"{pid}" for pid in scoring_processes(site) if not known & {pid, *_ancestors(pid)}]


def scoring_processes(site: Site) -> list[int]:
    """Return the processes of services, identified by folders of images in their command, environment or mounts."""
    supervisor = _supervisor(site)
    marks = [f"{site.data}/mms/{folder}/".encode() for folder in ("layers", "rootfs")]
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != supervisor:
            try:
                text = b"".join((folder / name).read_bytes() for name in ("cmdline", "environ", "mountinfo"))
            except OSError:
                continue
            if any(mark in text for mark in marks):
                found.append(int(folder.name))
    return found


def sockets(site: Site) -> list[str]:
    """Return unused sockets and files of services."""
    run = site.data / "run"
    programs = {line.split()[0] for line in site.supervisorctl("status").splitlines() if line.startswith("mms-")}
    found = [str(path) for path in (run / "services").glob("mms-*") if path.stem not in programs]
    for folder in (run / "s").glob("*") if programs else []:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(folder / "s"))
            except OSError as error:
                found.append(f"{folder}: {error}")
    if not programs:
        found += [str(path) for path in (run / "s").glob("*")]
    return found


def damage(site: Site) -> list[str]:
    """Return unexpected files in the store, and blobs that the store refers to but doesn't contain."""
    mms = site.data / "mms"
    blobs = mms / "oci/blobs/sha256"
    found = [f"{path.name} holds {_sha256(path)}" for path in blobs.iterdir() if _sha256(path) != path.name]
    for entry in json.loads((mms / "oci/index.json").read_bytes())["manifests"]:
        found += [f"{entry} lacks {digest}" for digest in _needed(blobs, entry["digest"]) if not _has(blobs, digest)]
    for path in (mms / "known").glob("*.json"):
        layer = json.loads(path.read_bytes())
        if not _has(blobs, layer["digest"]):  # its tree may be missing: after a reboot it is unpacked when it is needed
            found.append(f"{path.name} names {layer}")
    return found


def readable_by_others(site: Site) -> int:
    """Return how many images skopeo can read from the store, each with the digest in the index; 0 without skopeo."""
    if not shutil.which("skopeo"):
        return 0
    oci = site.data / "mms/oci"
    entries = json.loads((oci / "index.json").read_bytes())["manifests"]
    for entry in entries:
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        done = subprocess.run(["skopeo", "inspect", f"oci:{oci}:{name}"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["Digest"] == entry["digest"]
    return len(entries)


def _needed(blobs: Path, digest: str) -> list[str]:
    if not _has(blobs, digest):
        return [digest]
    manifest = json.loads((blobs / digest[7:]).read_bytes())
    return [digest, *(item["digest"] for item in [manifest["config"], *manifest["layers"]])]


def _has(blobs: Path, digest: str) -> bool:
    return (blobs / digest.removeprefix("sha256:")).is_file()


def _sha256(path: Path) -> str:
    key = (path, path.stat().st_mtime_ns)
    if key not in _hashed:
        with path.open("rb") as file:
            _hashed[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashed[key]


def _ancestors(pid: int) -> set[int]:
    try:
        return {parent.pid for parent in psutil.Process(pid).parents()}
    except psutil.Error:
        return set()


def _supervisor(site: Site) -> int:
    return site.process.pid if site.process else 0
