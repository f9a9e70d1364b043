"""How does the kernel cut one process off from a server?

A process runs in a network namespace of its own, which is joined to this one by a pair of virtual
interfaces; what it may not reach is dropped or refused there by nftables, so that nobody else
notices. That needs root, ip(8) and nft(8): where one is missing, `missing` says which.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

# For tests of networks (RFC 2544); each namespace takes four addresses of it.
_NET = "198.18"
_BLOCKS = 1 << 14
_TABLE = "inet cut"
# What is dropped is so both ways; a reset is sent to whoever sends, and has to come in.
_RULES = {
    "drop": {"output": "tcp dport {} drop", "input": "tcp sport {} drop"},
    "refuse": {"output": "tcp dport {} reject with tcp reset"},
}


@cache
def missing() -> str | None:
    """Return why namespaces cannot be had here, None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"network namespaces need {program}"
    try:
        with namespace() as probe:
            probe.cut(1, how="drop")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces: {error.stderr.strip()}"
    return None


@dataclass(frozen=True)
class Namespace:
    """A network of its own.

    Attributes:
        inside: the address of what runs there.
        outside: the address at which it finds this network.
    """

    name: str
    inside: str
    outside: str

    def command(self, command: list[str]) -> list[str]:
        """Return a command that runs this one there; the process stays the same."""
        return ["ip", "netns", "exec", self.name, *command]

    def cut(self, port: int, *, how: str) -> None:
        """Let nothing pass to a port: `drop` tells nobody, `refuse` breaks connections off."""
        lines = [f"add table {_TABLE}"]
        for hook, rule in _RULES[how].items():
            lines += [
                f"add chain {_TABLE} {hook} {{ type filter hook {hook} priority 0; }}",
                f"add rule {_TABLE} {hook} {rule.format(port)}",
            ]
        self._filter(lines)

    def heal(self) -> None:
        """Let everything pass again."""
        self._filter([f"add table {_TABLE}", f"delete table {_TABLE}"])

    def _filter(self, lines: list[str]) -> None:
        _run("ip", "netns", "exec", self.name, "nft", "; ".join(lines))


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Make a namespace; it is gone, with its interfaces, when the context ends."""
    block = secrets.randbelow(_BLOCKS) * 4
    net = f"{_NET}.{block >> 8}"
    made = Namespace(
        name=f"vg{os.getpid()}x{block}",
        inside=f"{net}.{(block & 0xFF) + 2}",
        outside=f"{net}.{(block & 0xFF) + 1}",
    )
    here, there = f"vg{block}a", f"vg{block}b"
    _run("ip", "netns", "add", made.name)
    try:
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", made.name)
        _run("ip", "address", "add", f"{made.outside}/30", "dev", here)
        _run("ip", "link", "set", here, "up")
        _run("ip", "-n", made.name, "address", "add", f"{made.inside}/30", "dev", there)
        _run("ip", "-n", made.name, "link", "set", there, "up")
        _run("ip", "-n", made.name, "link", "set", "lo", "up")
        yield made
    finally:
        # The interface goes with the namespace, but only once its last process is gone.
        subprocess.run(["ip", "link", "delete", here], check=False, capture_output=True)
        _run("ip", "netns", "delete", made.name)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
