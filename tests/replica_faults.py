"""What happens to replicas and to their database, one thing after the other, drawn from a seed?

Faults overlap, but for those of one replica and those of the database, which wait for each other.
"""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from replica_tools import Cluster, Replica

from gateway.mirror import turn
from gateway.videos import poller, submit

# Past the lease of a submit whose POST may take as long as tests allow, hence past all leases.
PAST_ALL_LEASES_SECONDS = submit.LEASE_MARGIN_SECONDS + 10
LEAST_GAP_SECONDS = 1.0
LONGEST_GAP_SECONDS = 3.0
LONGEST_FAULT_SECONDS = 6.0
LONGEST_AWAY_SECONDS = 2.0
STEPS = (*submit.STEPS, *poller.STEPS, *turn.STEPS)
LONGEST_NTH = 6


@dataclass(frozen=True)
class Fault:
    """One thing that happens.

    Attributes:
        kind: a name of KINDS.
        replica: to which, where it is not the database.
        chance: from which all else is drawn.
        after_seconds: since the one before began.
    """

    kind: str
    replica: int
    chance: random.Random
    after_seconds: float


@dataclass
class Faults:
    """Lets faults happen to a cluster.

    Attributes:
        said: each of them in a line, as it began.
        kernel: whether the kernel cuts replicas off, beside the lines.
    """

    cluster: Cluster
    seed: int
    kernel: bool
    said: list[str] = field(default_factory=list)
    locks: Mapping[int, asyncio.Lock] = field(default_factory=dict)

    async def happen(self, seconds: float) -> None:
        """Let faults happen for so long; then everything is whole again."""
        begun = time.monotonic()
        count = len(self.cluster.replicas)
        self.locks = {number: asyncio.Lock() for number in range(-1, count)}
        async with asyncio.TaskGroup() as group:
            for fault in drawn(self.seed, replicas=count):
                left = begun + seconds - time.monotonic() - fault.after_seconds
                if left < 0:
                    break
                await asyncio.sleep(fault.after_seconds)
                group.create_task(self._happen(fault, begun=begun))

    async def _happen(self, fault: Fault, *, begun: float) -> None:
        act, alone = KINDS[fault.kind]
        async with self.locks[fault.replica if alone else -1]:
            replica = self.cluster.replicas[fault.replica]

            def say(what: str) -> None:
                where = f"replica {fault.replica} " if alone else ""
                self.said.append(f"{time.monotonic() - begun:5.1f} s: {where}{fault.kind} {what}")

            await act(self, replica, fault.chance, say)


def drawn(seed: int, *, replicas: int) -> Iterator[Fault]:
    """Yield faults without end, the same for the same seed; each kind once in every round."""
    chance = random.Random(seed)
    while True:
        for kind in chance.sample(sorted(KINDS), len(KINDS)):
            yield Fault(
                kind,
                chance.randrange(replicas),
                random.Random(chance.random()),
                chance.uniform(LEAST_GAP_SECONDS, LONGEST_GAP_SECONDS),
            )


_Say = Callable[[str], None]


async def _killed(_: Faults, replica: Replica, chance: random.Random, say: _Say) -> None:
    away = chance.uniform(0, LONGEST_AWAY_SECONDS)
    say(f"for {away:.1f} s")
    await replica.end()
    await asyncio.sleep(away)
    await replica.start()


async def _dies(_: Faults, replica: Replica, chance: random.Random, say: _Say) -> None:
    step, nth = chance.choice(STEPS), chance.randint(1, LONGEST_NTH)
    say(f"{step}, the {nth}. time")
    await replica.restart(step, nth=nth)
    with suppress(TimeoutError):
        await replica.alive.died(seconds=LONGEST_FAULT_SECONDS)
    await replica.restart()


async def _told_to_end(_: Faults, replica: Replica, chance: random.Random, say: _Say) -> None:
    say("")
    del chance
    replica.alive.terminate()
    with suppress(TimeoutError):
        await replica.alive.died(seconds=LONGEST_FAULT_SECONDS)
    await replica.restart()


async def _paused(faults: Faults, replica: Replica, chance: random.Random, say: _Say) -> None:
    seconds = chance.uniform(0.5, LONGEST_FAULT_SECONDS / 2)
    say(f"for {PAST_ALL_LEASES_SECONDS} s, which take {seconds:.1f} s")
    replica.alive.popen.send_signal(signal.SIGSTOP)
    faults.cluster.stage.jump(PAST_ALL_LEASES_SECONDS)
    await asyncio.sleep(seconds)
    replica.alive.resume()


async def _cut_off(faults: Faults, replica: Replica, chance: random.Random, say: _Say) -> None:
    kernel, how = chance.choice([True, False]), chance.choice(["drop", "refuse"])
    seconds = chance.uniform(0.5, LONGEST_FAULT_SECONDS)
    kernel = kernel and faults.kernel
    say(f"({how}) by {'the kernel' if kernel else 'a proxy'} for {seconds:.1f} s")
    if kernel:
        assert replica.namespace is not None
        replica.namespace.cut(replica.database.port, how=how)
        await asyncio.sleep(seconds)
        replica.namespace.heal()
    elif how == "drop":
        await replica.database.hang()
        await asyncio.sleep(seconds)
        replica.database.go_on()
    else:
        await replica.database.go()
        await asyncio.sleep(seconds)
        await replica.database.come()


async def _restarted(
    faults: Faults, _: Replica, chance: random.Random, say: _Say, *, mode: str
) -> None:
    away = chance.uniform(0, LONGEST_AWAY_SECONDS)
    say(f"for {away:.1f} s")
    await asyncio.to_thread(faults.cluster.postgres.stop, mode)
    await asyncio.sleep(away)
    await asyncio.to_thread(faults.cluster.postgres.start)


_Act = Callable[[Faults, Replica, random.Random, _Say], Awaitable[None]]
# What happens, and whether to one replica alone.
KINDS: Mapping[str, tuple[_Act, bool]] = {
    "is killed": (_killed, True),
    "dies at": (_dies, True),
    "is told to end": (_told_to_end, True),
    "is paused": (_paused, True),
    "is cut off from the database": (_cut_off, True),
    "the database is stopped": (partial(_restarted, mode="fast"), False),
    "the database crashes": (partial(_restarted, mode="immediate"), False),
}
