"""The panels: title, description, unit and queries of each. A test runs every query on a real Prometheus."""

from typing import Final

from dashboard.panel import GREEN, ORANGE, RED, Graph, Panel, Stat

OURS: Final = '{namespace=~"$namespace", pod=~"$pod"}'
POD: Final = "{{namespace}}/{{pod}}"
PODS: Final = "namespace, pod"
RELEASE: Final = "{{namespace}} {{job}}"
RELEASES: Final = "namespace, job"  # for metrics that every pod of a release reports alike
PROCESS: Final = POD + " {{container}}"
PROCESSES: Final = PODS + ", container"  # receiver and relay
DESTINATION: Final = "{{destination}}"
P: Final = "whatsapp_webhook_"
OURS_ALONE: Final = f"{P}build_info|{P}relay_failing"  # reported by the receiver, and by the relay
RESPONSES: Final = "http_server_request_duration_seconds"
NOTIFICATIONS: Final = P + "notifications_total"
ATTEMPT: Final = P + "relay_delivery_seconds"
EVENTS: Final = P + "events_total"
ALERTS: Final = 'ALERTS{alertname=~"Webhook.+", alertstate="firing", namespace=~"$namespace"}'
FAILED: Final = "unavailable|error|overloaded|not_configured"
BAD: Final = {"accepted|200": GREEN, f"5..|{FAILED}": RED}
ERROR_BUDGET: Final = 0.001  # share of the correctly signed notifications that may fail


def _selector(matchers: str = "") -> str:
    return f"{OURS[:-1]}, {matchers}}}" if matchers else OURS


def _rate(metric: str, by: str = "", matchers: str = "", over: str = "rate", window: str = "$__rate_interval") -> str:
    return f"sum by ({by}) ({over}({metric}{_selector(matchers)}[{window}]))"


def _percentiles(metric: str, matchers: str = "") -> dict[str, str]:
    buckets = _rate(metric + "_bucket", "le", matchers)
    return {f"p{share * 100:g}": f"histogram_quantile({share}, {buckets})" for share in (0.5, 0.99)}


def _over_pods(operator: str, metric: str, by: str = PODS) -> str:
    return f"{operator} by ({by}) ({metric}{OURS})"


def _breaker_in(state: str) -> str:
    matchers = _selector(f'state="{state}"')
    return f"max by (destination) ({P}relay_breaker_state{matchers})"


def _failed_share() -> str:
    failed, correctly_signed = (
        _rate(NOTIFICATIONS, matchers=f'outcome=~"{outcomes}"', over="increase", window="$__range")
        for outcomes in (FAILED, f"accepted|{FAILED}")
    )
    return f"{failed} / {correctly_signed}"


PANELS: Final[dict[str, list[Panel]]] = {
    "Does Meta get its 200?": [
        Stat(
            title="Alerts firing",
            description="Firing alerts in the chosen namespaces; every graph marks them in red with their names.",
            unit="short",
            queries={"": f"count({ALERTS}) or vector(0)"},
            steps=((GREEN, None), (RED, 1)),
        ),
        Stat(
            title="Receivers scraped",
            description="Receivers that Prometheus scrapes, ready or not: a pod that waits for its Secret counts.",
            unit="short",
            queries={"": f"count({P}build_info{OURS})"},
            steps=((RED, None), (GREEN, 1)),
            none="none",
        ),
        Stat(
            title="Stored at the first attempt",
            description="Share of the correctly signed notifications that was answered 200, in the chosen time range.",
            unit="percentunit",
            queries={"": f"1 - {_failed_share()}"},
            steps=((RED, None), (ORANGE, 0.99), (GREEN, 1 - ERROR_BUDGET)),
            none="no traffic",
        ),
        Stat(
            title="Error budget left",
            description="The rest of the 0.1 % that may fail, in the chosen time range; the objective is over 30 days.",
            unit="percentunit",
            queries={"": f"1 - {_failed_share()} / {ERROR_BUDGET}"},
            steps=((RED, None), (ORANGE, 0), (GREEN, 0.5)),
            none="no traffic",
        ),
        Graph(
            title="Notifications by outcome",
            description="Only `accepted` is answered 200; the runbook explains the others under WebhookHighErrorRate.",
            unit="reqps",
            queries={"{{outcome}}": _rate(NOTIFICATIONS, "outcome")},
            colours=BAD,
        ),
        Graph(
            title="Response time of accepted notifications",
            description="Mostly commit time. After some seconds Meta retries. The dashed line is the objective, 1 s.",
            unit="s",
            queries=_percentiles(RESPONSES, 'http_request_method="POST", http_response_status_code="200"'),
            limit=1,
        ),
        Graph(
            title="Delay from Meta's timestamp",
            description="Minutes, with a good response time: Meta sent late, or retries what failed before.",
            unit="s",
            queries=_percentiles(P + "event_delay_seconds"),
        ),
    ],
    "Is anything rejected, and why?": [
        Graph(
            title="Rejected notifications by outcome",
            description="`bad_signature`: was the app secret reset at Meta? Add the new one to the Secret.",
            unit="reqps",
            queries={"{{outcome}}": _rate(NOTIFICATIONS, "outcome", 'outcome!="accepted"')},
            colours={FAILED: RED},
        ),
        Graph(
            title="Responses by status",
            description="Every request to the public listener, from Meta or from strangers.",
            unit="reqps",
            queries={"{{http_response_status_code}}": _rate(RESPONSES + "_count", "http_response_status_code")},
            colours=BAD,
        ),
        Graph(
            title="Handshakes",
            description="`verified` is Meta; the others are strangers, or a wrong verify token at Meta.",
            unit="short",
            queries={"{{outcome}}": _rate(P + "handshakes_total", "outcome", over="increase")},
        ),
        Graph(
            title="Events by outcome",
            description="`duplicate`: Meta retried an event that is already stored.",
            unit="cps",
            queries={"{{outcome}}": _rate(EVENTS, "outcome")},
        ),
        Graph(
            title="New events by type",
            description="What users send, and what Meta reports.",
            unit="cps",
            queries={"{{type}}": _rate(EVENTS, "type", 'outcome="new"')},
        ),
    ],
    "Does the inbox keep up?": [
        Graph(
            title="Commit time",
            description="One group commit until it is durable: synced to the disk, or acknowledged by the server.",
            unit="s",
            queries=_percentiles(P + "inbox_put_seconds"),
        ),
        Graph(
            title="Requests waiting for a commit",
            description="If it rises, the disk or the server is slower than Meta sends.",
            unit="short",
            queries={POD: _over_pods("max", P + "inbox_waiting")},
        ),
        Graph(
            title="Events per commit",
            description="Under load many events share one sync.",
            unit="short",
            queries={"mean": f"{_rate(P + 'inbox_commit_events_sum')} / {_rate(P + 'inbox_commit_events_count')}"},
        ),
        Graph(
            title="Inbox errors by reason",
            description="The runbook explains each reason under WebhookInboxErrors.",
            unit="cps",
            queries={"{{reason}}": _rate(P + "inbox_errors_total", "reason")},
        ),
        Graph(
            title="Stored events",
            description="Grows until the service has run for as long as the retention.",
            unit="short",
            queries={RELEASE: _over_pods("max", P + "inbox_events", RELEASES)},
        ),
        Graph(
            title="Volume of the inbox",
            description="When it is full, notifications are answered 503. An external inbox is not shown.",
            unit="bytes",
            queries={
                f"used {RELEASE}": _over_pods("max", P + "inbox_bytes", RELEASES),
                f"free {RELEASE}": _over_pods("min", P + "inbox_free_bytes", RELEASES),
            },
        ),
    ],
    "Do destinations get their events?": [
        Graph(
            title="Undelivered events",
            description="Waiting for delivery, by destination. If it rises, the destination is too slow or down.",
            unit="short",
            queries={
                DESTINATION: _over_pods("max", P + "relay_backlog_events", "destination"),
                "not read yet, at most: {{destination}}": _over_pods(
                    "max", P + "relay_unread_positions", "destination"
                ),
            },
        ),
        Graph(
            title="Age of the oldest undelivered event",
            description="After three days of failing attempts an event becomes a dead letter.",
            unit="s",
            queries={DESTINATION: _over_pods("max", P + "relay_oldest_event_seconds", "destination")},
        ),
        Graph(
            title="Delivery attempts by outcome",
            description="Only `delivered` succeeded; the others are retried.",
            unit="cps",
            queries={"{{destination}} {{outcome}}": _rate(P + "relay_attempts_total", "destination, outcome") + " > 0"},
        ),
        Graph(
            title="Attempt duration",
            description="99th percentile, by destination: mostly the time that its application takes to answer.",
            unit="s",
            queries={DESTINATION: f"histogram_quantile(0.99, {_rate(ATTEMPT + '_bucket', 'le, destination')})"},
        ),
        Graph(
            title="Paused, misconfigured or disabled",
            description="1: paused by its circuit breaker, misconfigured, or disabled until somebody enables it.",
            unit="short",
            queries={
                "paused {{destination}}": f"1 - {_breaker_in('closed')}",
                "misconfigured {{destination}}": (
                    f"{_over_pods('max', P + 'relay_destination_misconfigured', 'destination')} or "
                    f"0 * {_over_pods('max', P + 'relay_destination_disabled', 'destination')}"
                ),
                "disabled {{destination}}": _over_pods("max", P + "relay_destination_disabled", "destination"),
            },
        ),
        Graph(
            title="Dead letters",
            description="Deliveries given up: see `events dead-letters`, and `events replay --dead-letters`.",
            unit="short",
            queries={
                "{{destination}} {{reason}}": _rate(
                    P + "relay_dead_letters_total", "destination, reason", over="increase"
                )
            },
        ),
    ],
    "Credentials": [
        Stat(
            title="Accepted values",
            description="0: waiting for the Secret. 2 or more: a rotation is not finished.",
            unit="short",
            queries={"{{credential}}": _over_pods("min", P + "credentials_accepted", "credential")},
            steps=((RED, None), (GREEN, 1), (ORANGE, 2)),
        ),
        Stat(
            title="Stale",
            description="1: the files can't be read or are invalid; the last good values are still accepted.",
            unit="short",
            queries={POD: _over_pods("max", P + "credentials_stale")},
            steps=((GREEN, None), (RED, 1)),
        ),
        Stat(
            title="Last change",
            description="When the accepted values last changed.",
            unit="dateTimeFromNow",
            queries={POD: f"{_over_pods('max', P + 'credentials_changed_timestamp_seconds')} * 1000 > 0"},
            none="never",
        ),
        Graph(
            title="Matches by line",
            description="Which line of the file matched. If only position 1 grows, the older lines can be removed.",
            unit="cps",
            queries={"{{credential}} {{position}}": _rate(P + "credential_matches_total", "credential, position")},
        ),
    ],
    "Processes": [
        Stat(
            title="Version",
            description="Version of the receivers.",
            unit="short",
            queries={"{{version}}": f"count by (version) ({P}build_info{OURS})"},
            text="name",
        ),
        Stat(
            title="Started",
            description="When each process started: a recent start is a restart.",
            unit="dateTimeFromNow",
            queries={PROCESS: f"{_over_pods('max', 'process_start_time_seconds', PROCESSES)} * 1000"},
        ),
        Graph(
            title="CPU",
            description="CPU cores in use, by process. One process uses little more than one.",
            unit="short",
            queries={PROCESS: _rate("process_cpu_seconds_total", PROCESSES)},
        ),
        Graph(
            title="Memory",
            description="Resident memory, by process; the limit is that of the container.",
            unit="bytes",
            queries={PROCESS: _over_pods("max", "process_resident_memory_bytes", PROCESSES)},
        ),
        Graph(
            title="Open files",
            description="Open file descriptors, by process; each connection is one.",
            unit="short",
            queries={PROCESS: _over_pods("max", "process_open_fds", PROCESSES)},
        ),
        Graph(
            title="Requests in progress",
            description="Requests being read or answered now, by pod.",
            unit="short",
            queries={POD: _over_pods("max", "http_server_active_requests")},
        ),
    ],
}
