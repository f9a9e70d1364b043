"""What does the gateway run on, and is there enough of it?"""

from typing import Final

from grafana.panels import (
    OUTCOMES,
    Query,
    falling,
    graph,
    never,
    rare,
    rising,
    states,
    table,
)
from grafana.promql import (
    age,
    in_bar,
    metric,
    per_replica,
    per_second,
    quantile,
    recorded,
)

ALARMS: Final = (
    rare(
        "Alarms by event",
        "Log lines of level error, by their event: search the log for its name.",
        Query(in_bar("alarms_total", by="event"), "{{event}}"),
        width=6,
    ),
    states(
        "Checks",
        "What /readyz?verbose looks at, in the replica that is worst off. not_draining: it is not "
        "told to stop. Without its store it stays ready, but buys nothing.",
        Query(per_replica("check_passing", by="check", fold="min"), "{{check}}"),
        thresholds=falling(0.5, 1),
        words=(("0", "failing", "red"), ("1", "passing", "green")),
        width=6,
    ),
    graph(
        "Spend alerts waiting",
        "Mails and webhooks about spend that are not delivered yet: how long the oldest waits.",
        "s",
        Query(age(recorded("alert_outbox_oldest_timestamp_seconds")), "oldest"),
        thresholds=rising(600, 3600),
        no_value="nothing waits",
        width=6,
    ),
    rare(
        "Deliveries of spend alerts",
        "Tries to deliver a mail or webhook about spend. given_up: after three days.",
        Query(in_bar("alert_deliveries_total", by="outcome"), "{{outcome}}"),
        colours=OUTCOMES,
        width=6,
    ),
)

DATABASE_AND_STORE: Final = (
    graph(
        "95 % of scripts done within",
        "95 % of scripts were answered faster, waiting included. run: writes, one line of them; "
        "run_beside: writes that are not in that line; read: reads.",
        "s",
        Query(quantile(0.95, "database_duration_seconds", by="kind"), "{{kind}}"),
        thresholds=rising(0.25, 1),
        width=6,
    ),
    never(
        "Database errors",
        "Scripts that the database could not run. Purchases are refused meanwhile.",
        Query(in_bar("database_errors_total", by="kind"), "{{kind}}"),
        width=6,
    ),
    graph(
        "95 % of store work done within",
        "95 % were done faster: of a piece that is written, of the commit "
        "that makes all pieces visible, of a read until it was open.",
        "s",
        Query(quantile(0.95, "store_duration_seconds", by="operation"), "{{operation}}"),
        thresholds=rising(1, 5),
        width=6,
    ),
    never(
        "Store errors",
        "What the store could not do. Purchases are refused while it is down.",
        Query(in_bar("store_errors_total", by="operation"), "{{operation}}"),
        width=6,
    ),
)

MACHINE: Final = (
    graph(
        "Event loop lag",
        "How much later than asked the loop came round, 99 % of the time, in each replica. "
        "Everything waits that long: it grows when a replica has more to do than one core can.",
        "s",
        Query(quantile(0.99, "event_loop_lag_seconds", by="instance"), "{{instance}}"),
        thresholds=rising(0.1, 0.5),
        width=6,
    ),
    graph(
        "CPU",
        "Cores that each replica uses, all its workers together. One worker can use one core.",
        "short",
        Query(per_second("process_cpu_seconds_total", by="instance"), "{{instance}}"),
        width=6,
    ),
    graph(
        "Memory",
        "Resident memory of each replica, all its workers together.",
        "bytes",
        Query(per_replica("process_resident_memory_bytes"), "{{instance}}"),
        width=6,
    ),
    graph(
        "Open files and sockets",
        "File descriptors of each replica. At the limit of the process nothing can be opened.",
        "short",
        Query(per_replica("process_open_fds"), "{{instance}}"),
        width=6,
    ),
    graph(
        "In flight",
        "Requests that are being answered, by replica; downloads count while they last.",
        "short",
        Query(per_replica("http_requests_in_flight"), "{{instance}}"),
        width=6,
    ),
    graph(
        "Free disk",
        "Share of each disk that is free: of the database, of the store, and of the spool, where "
        "content is on its way. Without room nothing can be bought or mirrored.",
        "percentunit",
        Query(
            f"{per_replica('disk_free_bytes', by='instance, disk', fold='min')} / "
            f"{per_replica('disk_size_bytes', by='instance, disk')}",
            "{{instance}} {{disk}}",
        ),
        thresholds=falling(0.05, 0.15),
        most=1,
        width=6,
    ),
    never(
        "Leases lost",
        "Turns that found their work taken over by another process: it was too slow, or "
        "its clock is wrong. Nothing is lost, but work is done twice.",
        Query(in_bar("leases_lost_total", by="loop"), "{{loop}}"),
        width=6,
    ),
    table(
        "What runs",
        "Version and catalogue of each replica, its processes, and since when it runs. Different "
        "catalogues mean different prices.",
        Query(f"max by (instance, version, catalogue_sha256) ({metric('build_info')})"),
        Query(per_replica("processes")),
        Query(age(per_replica("start_timestamp_seconds"))),
        columns=(
            ("instance", "replica"),
            ("version", "version"),
            ("catalogue_sha256", "catalogue"),
            ("B", "processes"),
            ("C", "runs for"),
        ),
        units=(("runs for", "s", 1),),
        hidden=("Value #A",),
        width=6,
    ),
)
