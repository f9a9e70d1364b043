"""What do clients of several replicas do, and what may they be told?

Each buys with the official SDK, whose retries go to whatever replica takes them, follows what it
bought to its end on all replicas, downloads it, and sometimes deletes it. Whatever it is told that
it must not be is an assertion that fails.
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
from replica_tools import Balancer, Cluster

from gateway.billing.keys import NewKey

AT_ONCE = 6  # videos that one client follows
BUY_SECONDS = 240  # how long the SDK's tries may take together, a pause of a replica included
READ_SECONDS = 90  # how long a client asks for one thing
PAUSE_SECONDS = 0.2
# Of the requests that are not harmless: what the upstream does with them (simulator/faults.py).
FAULTS = (
    *("[[502 executed=1]]", "[[503-envelope]]", "[[drop]]", "[[half-body]]", "[[fail]]"),
    *("[[400]]", "[[retrieve:404*2]]", "[[retrieve:drop*1]]", "[[content:truncate*1]]"),
    *("[[content:503*1]]", "[[late 1]]", "[[delay 1]]"),
)
HARMLESS = 3 * len(FAULTS)
REFUSALS = {
    *((429, "insufficient_quota"), (429, "rate_limit_exceeded"), (503, "database_unavailable")),
    *((502, "upstream_unreachable"), (503, "draining"), (503, "store_unavailable")),
}
# Of a retry these say nothing about the try before it.
UNCLEAR = ("database_unavailable", "draining", "store_unavailable")
# What the upstream itself says, passed on to who asked for it.
ASKED_FOR = {"[[400]]": 400, "[[503-envelope]]": 503}
COME_AGAIN = {409: "content_pending", 503: "database_unavailable"}
BOUGHT, REFUSED, UNKNOWN, LOST = "bought", "refused", "unknown", "lost"
# What counts of two answers to one intent.
FIRST_OF_ALL = (BOUGHT, UNKNOWN, LOST, REFUSED)
NAMED, DELETED = 1 / 3, 1 / 4  # of all intents; of what was downloaded
RANKS = {"queued": 0, "in_progress": 1, "completed": 2, "failed": 2}


@dataclass
class Intent:
    """One video that a client wants; `told` is how that ended for it."""

    prompt: str
    told: str = ""
    why: str = ""
    video_id: str = ""


@dataclass
class Client:
    """Somebody with a key.

    Attributes:
        whose: what the prompts of this client's project begin with.
    """

    name: str
    key: NewKey
    whose: str
    cluster: Cluster
    chance: random.Random
    intents: list[Intent] = field(default_factory=list)
    downloads: int = 0
    deletions: int = 0

    async def shop(self, closing: asyncio.Event) -> None:
        """Buy until it is closing time, and follow everything to its end."""
        places = asyncio.Semaphore(AT_ONCE)
        balancer = Balancer(self.cluster.replicas, self.chance)
        async with (
            self._sdk(balancer) as sdk,
            self._reader() as reader,
            asyncio.TaskGroup() as group,
        ):
            while not closing.is_set():
                await places.acquire()
                intent = self._intent()
                await self._buy(sdk, intent, balancer)
                task = group.create_task(self._follow(reader, intent))
                task.add_done_callback(lambda _: places.release())
                await asyncio.sleep(self.chance.uniform(0, 2 * PAUSE_SECONDS))

    def _intent(self) -> Intent:
        fault = self.chance.choice([*FAULTS, *[""] * HARMLESS])
        intent = Intent(f"{self.whose} {self.name}.{len(self.intents)} {fault}".strip())
        self.intents.append(intent)
        return intent

    def _sdk(self, balancer: Balancer) -> openai.AsyncOpenAI:
        # Its types want the client of httpx2; it takes that of httpx as well.
        http_client: Any = httpx.AsyncClient(transport=balancer)
        return openai.AsyncOpenAI(
            base_url="http://replicas/v1", api_key=self.key.value, http_client=http_client
        )

    def _reader(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url="http://replicas/v1",
            headers={"authorization": f"Bearer {self.key.value}"},
            transport=Balancer(self.cluster.replicas, self.chance),
            timeout=READ_SECONDS,
        )

    async def _buy(self, sdk: openai.AsyncOpenAI, intent: Intent, balancer: Balancer) -> None:
        broken = balancer.broken
        # Whoever names what it wants may ask again as often as it likes, also twice at once.
        named = self.chance.random() < NAMED
        headers = {"idempotency-key": intent.prompt} if named else {}
        async with asyncio.timeout(BUY_SECONDS):
            for _ in range(3 if named else 1):
                asked = [Intent(intent.prompt) for _ in range(2 if named else 1)]
                await asyncio.gather(*(self._ask_for(sdk, one, headers) for one in asked))
                for one in asked:
                    if balancer.broken > broken and any(code in one.why for code in UNCLEAR):
                        one.told = LOST
                told = min(asked, key=lambda one: FIRST_OF_ALL.index(one.told))
                intent.told, intent.why, intent.video_id = told.told, told.why, told.video_id
                assert {one.video_id for one in asked} <= {intent.video_id, ""}
                if intent.told != LOST:
                    return

    async def _ask_for(
        self, sdk: openai.AsyncOpenAI, intent: Intent, headers: dict[str, str]
    ) -> None:
        try:
            video = await sdk.videos.create(
                model="sora-2", prompt=intent.prompt, seconds="4", extra_headers=headers
            )
        except openai.APIConnectionError as error:
            intent.told, intent.why = LOST, repr(error.__cause__)
        except openai.APIStatusError as error:
            intent.why = f"{error.status_code} {error.code}: {error.message}"
            intent.told = _meant(intent, error)
        else:
            intent.told, intent.video_id = BOUGHT, video.id

    async def _follow(self, reader: httpx.AsyncClient, intent: Intent) -> None:
        if intent.told != BOUGHT:
            return
        if await self._end_of(reader, intent.video_id) == "failed":
            assert "[[fail]]" in intent.prompt, intent
            return
        await self._download(reader, intent.video_id)
        if self.chance.random() < DELETED:
            await self._look_through(reader)
            await self._delete(reader, intent.video_id)

    async def _end_of(self, reader: httpx.AsyncClient, video_id: str) -> str:
        """Return how a video ended; no replica shows less of it than another has shown."""
        shown = (0, 0)
        while True:
            answer = await _asked(reader, "GET", f"/videos/{video_id}")
            assert answer.status_code == 200, (video_id, answer.text)
            video = answer.json()
            now = (RANKS[video["status"]], int(video["progress"] or 0))
            assert now >= shown, (video_id, shown, video)
            shown = now
            if video["status"] in {"completed", "failed"}:
                return str(video["status"])
            await asyncio.sleep(PAUSE_SECONDS)

    async def _download(self, reader: httpx.AsyncClient, video_id: str) -> None:
        content = await self.cluster.stage.control.content(video_id)
        start = self.chance.randrange(len(content))
        headers, status, wanted = {}, 200, content
        if self.chance.random() < 1 / 2:
            headers, status, wanted = {"range": f"bytes={start}-"}, 206, content[start:]
        while True:
            answer = await _asked(reader, "GET", f"/videos/{video_id}/content", headers)
            # What is on its way may be sent whole.
            if answer.status_code == 200 and status == 206:
                status, wanted = 200, content
            assert (answer.status_code, answer.content == wanted) == (status, True), (
                video_id,
                headers,
                answer.status_code,
                answer.content[:300],
            )
            self.downloads += 1
            return

    async def _look_through(self, reader: httpx.AsyncClient) -> None:
        answer = await _asked(reader, "GET", "/videos?limit=100")
        assert answer.status_code == 200, answer.text
        for video in answer.json()["data"]:
            assert video["prompt"].startswith(self.whose), video

    async def _delete(self, reader: httpx.AsyncClient, video_id: str) -> None:
        # An answer may have been lost: then it is gone the second time.
        answer = await _asked(reader, "DELETE", f"/videos/{video_id}")
        assert answer.status_code in {200, 404}, answer.text
        answer = await _asked(reader, "GET", f"/videos/{video_id}")
        assert answer.status_code == 404, answer.text
        self.deletions += 1


def _meant(intent: Intent, error: openai.APIStatusError) -> str:
    """Return what an error says; it is one that clients may see."""
    if error.code == "outcome_unknown":
        assert error.response.headers["x-should-retry"] == "false"
        return UNKNOWN
    asked_for = [status for fault, status in ASKED_FOR.items() if fault in intent.prompt]
    known = (error.status_code, error.code) in REFUSALS or error.status_code in asked_for
    assert known, intent
    return REFUSED


async def _asked(
    reader: httpx.AsyncClient, method: str, path: str, headers: Any = None
) -> httpx.Response:
    """Return the first answer that does not tell a client to come again."""
    async with asyncio.timeout(READ_SECONDS):
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await reader.request(method, path, headers=headers)
                if answer.status_code not in COME_AGAIN:
                    return answer
                code = answer.json()["error"]["code"]
                assert code in {COME_AGAIN[answer.status_code], "draining"}, answer.text
            await asyncio.sleep(PAUSE_SECONDS)
