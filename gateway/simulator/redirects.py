"""Where does content go when it is not answered on the spot?

A fault `relocate` answers a content request with a redirect. Its value is "path" (another path of
this server, which needs no key), "origin" (the same, under another host name, so that a client
must drop its authorization), "self" (this very address, for ever), or a URL. An argument `status`
chooses the redirect, 302 unless said.
"""

from urllib.parse import quote

from starlette.requests import Request

from gateway.simulator.answers import Answer, page
from gateway.simulator.faults import Fault
from gateway.simulator.submits import Call


def relocated(answer: Answer, request: Request, *, call: Call, fault: Fault) -> Answer:
    """Return a redirect if the fault is `relocate`, else the answer itself."""
    if fault.name != "relocate":
        return answer
    variant = call.query.get("variant", "video")
    path = f"/_content/{quote(call.target, safe='')}?variant={variant}"
    match fault.value:
        case "path" | None:
            location = path
        case "origin":
            location = f"http://{_other_name(request)}:{request.url.port}{path}"
        case "self":
            location = request.scope["raw_path"].decode("ascii")
        case _:
            location = fault.value
    status = int(fault.arguments.get("status", "302"))
    moved = page(status, f"{status} Moved")
    return Answer(status, moved.body, moved.content_type, (("location", location),))


def _other_name(request: Request) -> str:
    return "127.0.0.1" if request.url.hostname == "localhost" else "localhost"
