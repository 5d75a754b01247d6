"""Each panel: its title, what a reader learns from it, its unit, its queries; a test runs them on a real Prometheus."""

from typing import Final

from dashboard.panel import GREEN, ORANGE, RED, Graph, Panel, Stat

OURS: Final = '{namespace=~"$namespace", pod=~"$pod"}'
POD: Final = "{{namespace}}/{{pod}}"
PODS: Final = "namespace, pod"
RELEASE: Final = "{{namespace}} {{job}}"
RELEASES: Final = "namespace, job"  # of what each of its pods tells the same
PROCESS: Final = POD + " {{container}}"
PROCESSES: Final = PODS + ", container"  # the receiver's and the relay's
DESTINATION: Final = "{{destination}}"
P: Final = "whatsapp_webhook_"
OURS_ALONE: Final = f"{P}build_info|{P}relay_failing"  # the receiver tells the one, the relay the other
ANSWERS: Final = "http_server_request_duration_seconds"
NOTIFICATIONS: Final = P + "notifications_total"
TRY: Final = P + "relay_delivery_seconds"
EVENTS: Final = P + "events_total"
ALERTS: Final = 'ALERTS{alertname=~"Webhook.+", alertstate="firing", namespace=~"$namespace"}'
FAILED: Final = "unavailable|error|overloaded|not_configured"
BAD: Final = {"accepted|200": GREEN, f"5..|{FAILED}": RED}
OBJECTIVE: Final = 0.001  # the share of rightly signed notifications that may fail


def _ours(having: str = "") -> str:
    return f"{OURS[:-1]}, {having}}}" if having else OURS


def _rate(metric: str, by: str = "", having: str = "", over: str = "rate", window: str = "$__rate_interval") -> str:
    return f"sum by ({by}) ({over}({metric}{_ours(having)}[{window}]))"


def _quantiles(metric: str, having: str = "") -> dict[str, str]:
    buckets = _rate(metric + "_bucket", "le", having)
    return {f"p{share * 100:g}": f"histogram_quantile({share}, {buckets})" for share in (0.5, 0.99)}


def _of_pods(how: str, metric: str, by: str = PODS) -> str:
    return f"{how} by ({by}) ({metric}{OURS})"


def _states(state: str) -> str:
    having = _ours(f'state="{state}"')
    return f"max by (destination) ({P}relay_breaker_state{having})"


def _failed() -> str:
    failed, rightly_signed = (
        _rate(NOTIFICATIONS, having=f'outcome=~"{outcomes}"', over="increase", window="$__range")
        for outcomes in (FAILED, f"accepted|{FAILED}")
    )
    return f"{failed} / {rightly_signed}"


PANELS: Final[dict[str, list[Panel]]] = {
    "Is Meta being answered?": [
        Stat(
            title="Alerts that fire",
            tells="Of this dashboard's namespaces; their names are marked in red on every graph.",
            unit="short",
            queries={"": f"count({ALERTS}) or vector(0)"},
            steps=((GREEN, None), (RED, 1)),
        ),
        Stat(
            title="Receivers that are scraped",
            tells="Not whether they are ready: a pod that waits for its Secret is scraped too.",
            unit="short",
            queries={"": f"count({P}build_info{OURS})"},
            steps=((RED, None), (GREEN, 1)),
            none="none",
        ),
        Stat(
            title="Kept at the first try",
            tells="The share of rightly signed notifications that was answered 200, in the time shown above.",
            unit="percentunit",
            queries={"": f"1 - {_failed()}"},
            steps=((RED, None), (ORANGE, 0.99), (GREEN, 1 - OBJECTIVE)),
            none="no traffic",
        ),
        Stat(
            title="Error budget left",
            tells="Of the 0.1 % that may fail, in the time shown above; choose 30 days for the objective's own.",
            unit="percentunit",
            queries={"": f"1 - {_failed()} / {OBJECTIVE}"},
            steps=((RED, None), (ORANGE, 0), (GREEN, 0.5)),
            none="no traffic",
        ),
        Graph(
            title="Notifications by outcome",
            tells="Everything but `accepted` is a question: see the runbook.",
            unit="reqps",
            queries={"{{outcome}}": _rate(NOTIFICATIONS, "outcome")},
            colours=BAD,
        ),
        Graph(
            title="Answer time of accepted notifications",
            tells="Meta waits; past some seconds it sends again. Mostly the inbox's time. The line is the objective.",
            unit="s",
            queries=_quantiles(ANSWERS, 'http_request_method="POST", http_response_status_code="200"'),
            limit=1,
        ),
        Graph(
            title="Delay from Meta's timestamp",
            tells="Minutes here and a good answer time mean that Meta was late, or sends again what failed.",
            unit="s",
            queries=_quantiles(P + "event_delay_seconds"),
        ),
    ],
    "Is anything refused, and why?": [
        Graph(
            title="Refused notifications",
            tells="`bad_signature` after a reset of the app secret: put the new one into the Secret.",
            unit="reqps",
            queries={"{{outcome}}": _rate(NOTIFICATIONS, "outcome", 'outcome!="accepted"')},
            colours={FAILED: RED},
        ),
        Graph(
            title="Answers by status",
            tells="All requests, whoever sends them.",
            unit="reqps",
            queries={"{{http_response_status_code}}": _rate(ANSWERS + "_count", "http_response_status_code")},
            colours=BAD,
        ),
        Graph(
            title="Handshakes",
            tells="Meta's are `verified`; others are strangers, or a wrong token at Meta.",
            unit="short",
            queries={"{{outcome}}": _rate(P + "handshakes_total", "outcome", over="increase")},
        ),
        Graph(
            title="Events by outcome",
            tells="`duplicate` is what Meta sent again and was already kept.",
            unit="cps",
            queries={"{{outcome}}": _rate(EVENTS, "outcome")},
        ),
        Graph(
            title="New events by type",
            tells="What the users do.",
            unit="cps",
            queries={"{{type}}": _rate(EVENTS, "type", 'outcome="new"')},
        ),
    ],
    "Is the inbox keeping up?": [
        Graph(
            title="Commit time",
            tells="One group commit until it is durable: the disk's sync, or the server's word.",
            unit="s",
            queries=_quantiles(P + "inbox_put_seconds"),
        ),
        Graph(
            title="Requests that wait for it",
            tells="Rising: the disk, or the server, is slower than Meta.",
            unit="short",
            queries={POD: _of_pods("max", P + "inbox_waiting")},
        ),
        Graph(
            title="Events of a commit",
            tells="Under load many share one sync.",
            unit="short",
            queries={"mean": f"{_rate(P + 'inbox_commit_events_sum')} / {_rate(P + 'inbox_commit_events_count')}"},
        ),
        Graph(
            title="Failures",
            tells="Each reason is in the runbook.",
            unit="cps",
            queries={"{{reason}}": _rate(P + "inbox_errors_total", "reason")},
        ),
        Graph(
            title="Events kept",
            tells="They grow until the retention is reached.",
            unit="short",
            queries={RELEASE: _of_pods("max", P + "inbox_events", RELEASES)},
        ),
        Graph(
            title="Volume",
            tells="Full, nothing can be kept. What a server of yours has left, it tells you itself.",
            unit="bytes",
            queries={
                f"taken {RELEASE}": _of_pods("max", P + "inbox_bytes", RELEASES),
                f"free {RELEASE}": _of_pods("min", P + "inbox_free_bytes", RELEASES),
            },
        ),
    ],
    "Do the destinations get their events?": [
        Graph(
            title="Events that wait",
            tells="By destination. Rising: it takes less than comes, or nothing.",
            unit="short",
            queries={DESTINATION: _of_pods("max", P + "relay_backlog_events", "destination")},
        ),
        Graph(
            title="Age of the oldest event that waits",
            tells="After three days of tries an event is given up.",
            unit="s",
            queries={DESTINATION: _of_pods("max", P + "relay_oldest_event_seconds", "destination")},
        ),
        Graph(
            title="Tries by outcome",
            tells="Everything but `delivered` is tried again.",
            unit="cps",
            queries={"{{destination}} {{outcome}}": _rate(P + "relay_attempts_total", "destination, outcome") + " > 0"},
        ),
        Graph(
            title="Time of a try",
            tells="The 99th percentile, by destination: what its application takes.",
            unit="s",
            queries={DESTINATION: f"histogram_quantile(0.99, {_rate(TRY + '_bucket', 'le, destination')})"},
        ),
        Graph(
            title="Left alone or disabled",
            tells="1: its circuit breaker is not closed, or it is disabled until somebody enables it.",
            unit="short",
            queries={
                "left alone {{destination}}": f"1 - {_states('closed')}",
                "disabled {{destination}}": _of_pods("max", P + "relay_destination_disabled", "destination"),
            },
        ),
        Graph(
            title="Dead letters",
            tells="Deliveries given up. `events dead-letters` lists them; `events replay --dead-letters` retries them.",
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
            title="In force",
            tells="0: waiting for the Secret. 2: a rotation is under way.",
            unit="short",
            queries={"{{credential}}": _of_pods("min", P + "credentials_accepted", "credential")},
            steps=((RED, None), (GREEN, 1), (ORANGE, 2)),
        ),
        Stat(
            title="Stale",
            tells="1: the Secret no longer gives what is in force.",
            unit="short",
            queries={POD: _of_pods("max", P + "credentials_stale")},
            steps=((GREEN, None), (RED, 1)),
        ),
        Stat(
            title="Last change",
            tells="When the values in force changed.",
            unit="dateTimeFromNow",
            queries={POD: f"{_of_pods('max', P + 'credentials_changed_timestamp_seconds')} * 1000 > 0"},
            none="never",
        ),
        Graph(
            title="Which line was used",
            tells="Position 2 standing still ends a rotation.",
            unit="cps",
            queries={"{{credential}} {{position}}": _rate(P + "credential_matches_total", "credential, position")},
        ),
    ],
    "The process": [
        Stat(
            title="Version",
            tells="What runs.",
            unit="short",
            queries={"{{version}}": f"count by (version) ({P}build_info{OURS})"},
            text="name",
        ),
        Stat(
            title="Up since",
            tells="A young process was restarted.",
            unit="dateTimeFromNow",
            queries={PROCESS: f"{_of_pods('max', 'process_start_time_seconds', PROCESSES)} * 1000"},
        ),
        Graph(
            title="CPU", tells="Cores.", unit="short", queries={PROCESS: _rate("process_cpu_seconds_total", PROCESSES)}
        ),
        Graph(
            title="Memory",
            tells="Of one process; the limit is the container's.",
            unit="bytes",
            queries={PROCESS: _of_pods("max", "process_resident_memory_bytes", PROCESSES)},
        ),
        Graph(
            title="Open files",
            tells="Each connection is one.",
            unit="short",
            queries={PROCESS: _of_pods("max", "process_open_fds", PROCESSES)},
        ),
        Graph(
            title="Requests being answered",
            tells="Waiting clients included.",
            unit="short",
            queries={POD: _of_pods("max", "http_server_active_requests")},
        ),
    ],
}
