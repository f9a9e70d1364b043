"""Is the upstream reachable, and does it accept the gateway's key?

One unbilled call, GET /models, is read. It was chosen over a retrieve of an id that cannot exist
because at relays of this family it tells one thing more: the list holds the models of the key's
own group, so a model that is not on it would be refused at submit with 503 "no channel serves
this model", which looks as if it could be retried and cannot.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from gateway.upstream.envelopes import RequestIds, Said, read_error, read_json, request_ids
from gateway.upstream.refusals import says_no_channel

_UNREACHABLE = {
    "connect_refused": "No program listens at the upstream's address.",
    "connect_timeout": "The upstream's address does not answer; look at firewalls and proxies.",
    "dns": "The upstream's name is not known; look at base_url and at the resolver.",
    "tls": "The upstream's certificate was not accepted, or it does not speak TLS there.",
    "answer_timeout": "The upstream accepted the call and did not answer in time.",
}


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What one unbilled call told.

    Attributes:
        ok: nothing stands in the way of a submit, as far as can be told without paying.
        word: `fine`, `key_refused`, `wrong_group`, `no_models_list`, `unreachable`,
            `rate_limited` or `unclear`.
        explanation: for the operator, in sentences.
        missing: those of the asked-for models that the key may not use.
    """

    ok: bool
    word: str
    explanation: str
    request_ids: RequestIds = field(default_factory=RequestIds)
    missing: tuple[str, ...] = ()


def explain_failure(reason: str) -> CheckReport:
    """Return the report for a call that brought no answer; reason is the transport's word."""
    sentence = _UNREACHABLE.get(reason, "The connection to the upstream broke.")
    return CheckReport(ok=False, word="unreachable", explanation=f"{sentence} ({reason})")


def explain_reply(
    *, status: int, headers: Mapping[str, str], body: bytes, models: Collection[str]
) -> CheckReport:
    """Return the report for the answer to GET /models."""
    ids = request_ids(headers)
    if status == HTTPStatus.OK:
        return _explain_list(body, models=models, ids=ids)
    said = read_error(body, headers=headers)
    word, sentence = _explain_status(status, said)
    words = f" It said: {said.message}" if said.message else ""
    return CheckReport(
        ok=word == "no_models_list",
        word=word,
        explanation=f"{sentence}{words}",
        request_ids=ids,
    )


def _explain_list(body: bytes, *, models: Collection[str], ids: RequestIds) -> CheckReport:
    served = _model_ids(body)
    if served is None:
        sentence = "The upstream answered, but not with a list of models; look at base_url."
        return CheckReport(ok=False, word="unclear", explanation=sentence, request_ids=ids)
    missing = tuple(sorted(set(models) - served))
    if missing:
        sentence = (
            f"The key works, but its group does not serve {', '.join(missing)}. At the relay, put"
            " the key into the group that does, with usage-based billing (per-request billing"
            " cannot route to these models)."
        )
        return CheckReport(
            ok=False, word="wrong_group", explanation=sentence, request_ids=ids, missing=missing
        )
    sentence = (
        "The upstream answers and accepts the key. Its billing mode shows only at a submit: a"
        " refusal `upstream_misconfigured` there means that it is not usage-based."
    )
    return CheckReport(ok=True, word="fine", explanation=sentence, request_ids=ids)


def _explain_status(status: int, said: Said) -> tuple[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return "key_refused", "The upstream does not accept the gateway's key."
    if status == HTTPStatus.FORBIDDEN or says_no_channel(said):
        return "wrong_group", (
            "The upstream knows the key and does not let it in: wrong group, wrong billing mode"
            " (it must be usage-based), or an address that is not on the key's list."
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limited", "The upstream answers; it is being asked too often."
    if status == HTTPStatus.NOT_FOUND and said.enveloped:
        return "no_models_list", (
            "The upstream answers, but has no list of models, so it cannot be told which ones the"
            " key may use."
        )
    return "unclear", f"The upstream answered with status {status}; look at base_url."


def _model_ids(body: bytes) -> set[str] | None:
    try:
        value: Any = read_json(body)
    except ValueError:
        return None
    entries = value.get("data") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        return None
    return {str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry}
