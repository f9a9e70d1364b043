"""What goes on in the background, beside requests?"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from gateway.alerts.deliver import Delivering, deliver_forever
from gateway.api.auth import write_used_forever
from gateway.api.health import watch
from gateway.api.parts import Parts
from gateway.billing.audit_turns import ANSWER_SECONDS, Auditing, audit_forever
from gateway.mirror.backlog import Watching, watch_forever
from gateway.mirror.retention import Retaining, retain_forever
from gateway.mirror.throttle import Throttle
from gateway.mirror.verify import Verifying
from gateway.mirror.verify_turns import log_verified, verify_forever
from gateway.setup import mail_settings, open_as_it_is
from gateway.videos.janitor import Cleaning, clean_forever
from gateway.videos.poller import Polling, poll_forever


def loops(parts: Parts, *, on_step: Callable[[str], None]) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield everything that goes on in the background until it is cancelled."""
    settings = parts.settings
    yield poll_forever(
        Polling(
            database=parts.database,
            upstreams=parts.upstreams,
            clock=parts.clock,
            interval_seconds=settings.poll_interval_seconds,
            typical_seconds={
                model.id: model.typical_generation_seconds[0]
                for model in parts.catalogue.models.values()
            },
            concurrency=settings.poll_concurrency,
            patience_seconds=settings.patience_seconds,
            on_completed=parts.mirror.wake,
            on_step=on_step,
            metrics=parts.metrics.videos,
            tracer=parts.tracer,
        )
    )
    yield parts.mirror.run()
    yield watch_forever(
        Watching(parts.database, parts.clock, alarm_seconds=settings.mirror_alarm_seconds)
    )
    yield deliver_forever(
        Delivering(
            database=parts.database,
            clock=parts.clock,
            mail=mail_settings(settings),
            webhook_secret=settings.alert_webhook_secret,
            wake=asyncio.Event(),
            on_step=on_step,
            jitter=parts.clock.chance,
            metrics=parts.metrics.alerts,
            tracer=parts.tracer,
        )
    )
    yield retain_forever(
        Retaining(
            database=parts.database,
            store=parts.store,
            clock=parts.clock,
            keep_seconds=settings.keep_seconds,
            keep_bytes=settings.keep_bytes,
            on_step=on_step,
        )
    )
    yield from _verify(parts)
    yield from _audit(parts)
    yield clean_forever(
        Cleaning(
            database=parts.database,
            store=parts.store,
            clock=parts.clock,
            metrics=parts.metrics.videos,
        )
    )
    yield write_used_forever(parts.authenticator)
    if settings.database_direct_url:
        yield _listen(parts)
    if settings.database_path is None:
        yield parts.health.server_time.measure_forever(parts.database)
    yield parts.metrics.process.watch()
    yield watch(
        parts.health,
        database=parts.database,
        store=parts.store,
        metrics=parts.metrics.process,
    )


def _listen(parts: Parts) -> Coroutine[Any, Any, None]:
    # Only here: a gateway with a file of its own needs no library for servers.
    from gateway.db.listening import listen_forever  # noqa: PLC0415 - see above

    return listen_forever(
        parts.settings.database_direct_url,
        password=parts.settings.database_password,
        heard=parts.authenticator.forget,
        listening=parts.authenticator.listening,
    )


def _verify(parts: Parts) -> Iterator[Coroutine[Any, Any, None]]:
    settings = parts.settings
    if settings.verify_days:
        verifying = Verifying(
            database=parts.database,
            store=parts.store,
            clock=parts.clock,
            throttle=Throttle(settings.verify_bytes_per_second, elapsed=parts.clock.elapsed),
            concurrency=1,
            told=log_verified,
        )
        yield verify_forever(verifying, days=settings.verify_days)


def _audit(parts: Parts) -> Iterator[Coroutine[Any, Any, None]]:
    settings = parts.settings
    if settings.audit_seconds:
        yield audit_forever(
            Auditing(
                database=parts.database,
                apart=partial(
                    open_as_it_is, settings, answer_seconds=ANSWER_SECONDS, breaks_off=True
                ),
                clock=parts.clock,
                interval_seconds=settings.audit_seconds,
            )
        )
