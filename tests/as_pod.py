"""How does a test run a container's command as Kubernetes would? As root: `as_pod.py JSON`.

The JSON says what the pod says: command, environment, mounts, user. The process gets a root folder
of its own, which is read-only: what this machine has, seen through bind mounts, and the pod's
volumes where they are mounted; no capabilities, and no way to get any. Its id
is that of the process that was started, so it can be sent signals.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP = 24
CLONE_NEWNS = 0x20000
LAST_CAPABILITY = 40
# What of this machine's root a program may need to run; of /etc, only names.
SEEN = ("bin", "lib", "lib32", "lib64", "opt", "sbin", "usr")
SEEN_IN_ETC = ("hosts", "ld.so.cache", "localtime", "nsswitch.conf", "resolv.conf", "ssl")


def main(told: dict[str, Any]) -> None:
    """Become the command, in a root of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("--make-rprivate", "/")
    root = Path(told["root"])
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(root))
    for name in SEEN:
        see(root, Path("/", name))
    for name in SEEN_IN_ETC:
        see(root, Path("/etc", name))
    for place, kind in (("/tmp", "tmpfs"), ("/proc", "proc")):
        folder(root, place)
        mount("-t", kind, kind, f"{root}{place}")
    see(root, Path("/dev"), writable=True)
    (root / "tmp").chmod(0o1777)
    for path in told["programs"]:
        see(root, Path(path))
    for place, source in told["mounts"].items():
        target = folder(root, place)
        mount("--bind", source["path"], str(target))
        if source["readonly"]:
            mount("-o", "remount,bind,ro", str(target))
    # Last: they may lie below what the pod mounts, such as /tmp.
    for path in told["programs"]:
        see(root, Path(path))
    mount("-o", "remount,ro", str(root))
    os.chroot(root)
    os.chdir("/")
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setgroups([told["groups"]])
    os.setgid(told["gid"])
    os.setuid(told["uid"])
    os.execvpe(told["command"][0], told["command"], told["env"])  # noqa: S606 - no shell, as said


def see(root: Path, path: Path, *, writable: bool = False) -> None:
    """Let something of this machine be seen at its own place, unless it is already."""
    target = root / path.relative_to("/")
    if path.is_symlink():
        target.symlink_to(path.readlink())
        return
    if not path.exists() or (target.exists() and target.samefile(path)):
        return
    if path.is_dir():
        folder(root, str(path))
    else:
        folder(root, str(path.parent))
        target.touch()
    mount("--rbind" if writable else "--bind", str(path), str(target))
    if not writable:
        mount("-o", "remount,bind,ro", str(target))


def folder(root: Path, place: str) -> Path:
    """Return the folder at a place of the pod's root, made if it is not there."""
    target = root / place.lstrip("/")
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    return target


def mount(*arguments: str) -> None:
    """Mount, or raise with what mount(8) says."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
