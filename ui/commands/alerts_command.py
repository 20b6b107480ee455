"""``ragsmith alerts``: watch metrics of answers, and send notices when they cross a threshold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from ui.commands._app import command_app
from ui.commands._console import print_table
from ui.commands._terminal_text import moment, note, one_line, print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.alerting.alert_notices import Notice
    from rag.alerting.alert_rules import Alert, Check
    from rag.alerting.alert_store import WatchedAlert
    from ui.app.alerting import Alerting, Preview, Sent

# As in rag.alerting.alert_rules, whose texts need the filter language.
METRICS = (
    *("requests", "p50", "p95", "p99", "first_token", "cost", "tokens"),
    *("errors", "abstained", "thumbs_down", "support"),
)
CHANNELS = ("wandb", "webhook", "email", "command")
STATUS = {"ok": 0, "warning": 3, "alert": 4}
"""Exit statuses of ``check``; 1 and 2 are failures and wrong arguments, as everywhere."""
UNNAMED = "unnamed"
LONGEST_PREVIEW_S = 366 * 86_400.0
HEADINGS = ("alert", "level", "since", "value", "watches", "channels", "not sent")


@click.group()
def command() -> None:
    """Watch metrics of answers, and send notices when they cross a threshold."""


def _definition(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that define an alert; the function gets their texts as ``typed``."""

    @click.option("--metric", type=click.Choice(METRICS), help="What is watched.")
    @click.option("--alert", "alert_at", metavar="VALUE", help="The threshold: 200, 2s, $5 or 10%.")
    @click.option("--warning", "warn_at", metavar="VALUE", help="The threshold of a warning.")
    @click.option("--direction", type=click.Choice(["above", "below"]), help="The bad side; above by default.")
    @click.option("--window", metavar="TIME", help="How far back a check looks: 15min, 1h (the default) or 1d.")
    @click.option("--filter", metavar="FILTER", help="Only these answers, in the filter language of traces.")
    @click.option(
        "--no-data", type=click.Choice(["ok", "keep", "alert"]), help="The level without data; ok by default."
    )
    @click.option("--renotify", metavar="TIME", help="Remind after this time while the level stays bad.")
    @click.option(
        "--channel", "channels", multiple=True, type=click.Choice(CHANNELS), help="Where to; may be repeated."
    )
    @wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:
        names = ("metric", "alert_at", "warn_at", "direction", "window", "filter", "no_data", "renotify")
        typed = {name: options.pop(name) for name in names} | {"channels": tuple(options.pop("channels")) or None}
        given = {name: value for name, value in typed.items() if value is not None}
        return function(*arguments, typed=given, **options)

    return command


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per alert.")
@pass_context
def list_command(context: Context, as_json: bool) -> None:
    """List the alerts with the level of their last check, and the notices that could not be sent."""
    with command_app(context) as app:
        _show(app.alerting, app.alerting.watched(), as_json)


@command.command(name="add")
@click.argument("name")
@_definition
@click.option("--json", "as_json", is_flag=True, help="Print the alert as a JSON object.")
@pass_context
def add_command(context: Context, name: str, typed: dict[str, Any], as_json: bool) -> None:
    """Save an alert; one of the same name is changed by the options that are given.

    A metric is bad above its threshold, or below it. `ragsmith alerts preview` shows on the answers so far how
    often it would have been.
    """
    with command_app(context) as app:
        alert = _defined(app.alerting, name, typed)
        app.alerting.save(alert)
        if as_json:
            print_json(asdict(alert), indent=2)
        else:
            from rag.alerting.alert_texts import condition_text

            click.echo(f"Saved {one_line(alert.name)}: {one_line(condition_text(alert))}.")
            if not alert.channels:
                note("It has no channel: its level is only shown. --channel adds one.")


@command.command(name="remove")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the name as a JSON object.")
@pass_context
def remove_command(context: Context, name: str, as_json: bool) -> None:
    """Remove an alert with its notices."""
    with command_app(context) as app:
        app.alerting.remove(name)
    if as_json:
        print_json({"removed": name})
    else:
        click.echo(f"Removed {one_line(name)}.")


@command.command(name="preview")
@click.argument("name", default="")
@_definition
@click.option("--since", metavar="WHEN", default="7d", show_default=True, help="The time: 2026-11-03, 24h or 7d.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the notices.")
@pass_context
def preview_command(context: Context, name: str, typed: dict[str, Any], since: str, as_json: bool) -> None:
    """Show which notices an alert would have sent: a saved one, or the one that the options define."""
    from rag.tracing.moments import parse_moment

    now = time.time()
    begin = parse_moment(since, now)
    if not now - LONGEST_PREVIEW_S <= begin < now:
        raise click.UsageError("--since must be before now, and within the last year.")
    with command_app(context) as app:
        preview = app.alerting.preview(_defined(app.alerting, name, typed, UNNAMED), begin, now)
    if as_json:
        found = [{"at": check.at, "event": check.event, **_state(check)} for check in preview.notices]
        print_json({"alert": asdict(preview.alert), "checks": len(preview.checks), "notices": found}, indent=2)
    else:
        _show_preview(preview)


@command.command(name="check")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per alert.")
@click.pass_context
@pass_context
def check_command(context: Context, ctx: click.Context, names: Sequence[str], as_json: bool) -> None:
    """Check alerts now, all or some, and send the notices that are due.

    A server does so by itself; this is for machines without one, such as from cron. The exit status is 0 if all
    levels are ok, 3 if one is warning, 4 if one is alert, and 1 if all are ok but a notice could not be sent.
    """
    with command_app(context) as app:
        alerting = app.alerting
        chosen = [app.stores.alerts.get(name) for name in names] if names else alerting.watched()
        for watched in chosen:
            alerting.check(watched, time.time())
        failed = [sent for sent in alerting.deliver(time.time()) if sent.error]
        after = [app.stores.alerts.get(watched.alert.name) for watched in chosen]
        _show(alerting, after, as_json)
    for sent in failed:
        note(f"The alert {sent.notice.message.alert} was not sent by {sent.notice.channel}: {sent.error}")
    worst = max((STATUS[watched.state.level] for watched in after), default=0)
    ctx.exit(worst or int(bool(failed)))


@command.command(name="test")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per channel.")
@click.pass_context
@pass_context
def test_command(context: Context, ctx: click.Context, name: str, as_json: bool) -> None:
    """Send a test notice to every channel of an alert; the exit status is 1 if one fails."""
    with command_app(context) as app:
        outcomes = list(app.alerting.test(app.stores.alerts.get(name).alert))
    if as_json:
        print_json([{"channel": sent.notice.channel, "error": sent.error} for sent in outcomes], indent=2)
    else:
        _show_sent(outcomes)
    ctx.exit(int(any(sent.error for sent in outcomes)))


def _defined(alerting: Alerting, name: str, typed: dict[str, Any], unnamed: str = "") -> Alert:
    """Return the alert that a name and options define: a saved one with these changes, or a new one.

    Raises:
        click.UsageError: It is new or has another metric, and its metric or a threshold is missing.
        AlertError: A value cannot be used.
    """
    from rag.alerting.alert_texts import AlertTexts, read_alert, texts_of

    name = " ".join(name.split())
    saved = {watched.alert.name: watched.alert for watched in alerting.watched()}
    if name in saved:
        if typed.get("metric", saved[name].metric) != saved[name].metric:
            _check_thresholds(saved[name], typed)
        return read_alert(replace(texts_of(saved[name]), **typed))
    for option, value in (("--metric", "metric"), ("--alert", "alert_at")):
        if value not in typed:
            missing = f"There is no alert {name!r}; a" if name else "A"
            raise click.UsageError(f"{missing} new alert needs {option}.")
    return read_alert(AlertTexts(name or unnamed, **typed))


def _check_thresholds(saved: Alert, typed: Mapping[str, Any]) -> None:
    """Raise click.UsageError if an alert with another metric would keep a threshold of the old one."""
    for option, value, kept in (("--alert", "alert_at", saved.alert_at), ("--warning", "warn_at", saved.warn_at)):
        if kept is not None and value not in typed:
            raise click.UsageError(
                f"Another metric for {saved.name!r} needs {option}, in the unit of that metric."
            )


def _show(alerting: Alerting, watched: Iterable[WatchedAlert], as_json: bool) -> None:
    troubles = alerting.troubles()
    if as_json:
        print_json([_record(one, troubles.get(one.alert.name, [])) for one in watched], indent=2)
    elif rows := [_row(one, troubles.get(one.alert.name, [])) for one in watched]:
        print_table(HEADINGS, rows)
    else:
        click.echo("There are no alerts. `ragsmith alerts add --help` shows how to add one.")


def _record(watched: WatchedAlert, troubles: Sequence[Notice]) -> dict[str, Any]:
    failed = [
        {name: getattr(notice, name) for name in ("channel", "attempts", "next_at", "error")}
        for notice in troubles
    ]
    return {**asdict(watched.alert), "state": asdict(watched.state), "not_sent": failed}


def _row(watched: WatchedAlert, troubles: Sequence[Notice]) -> tuple[str, ...]:
    from rag.alerting.alert_rules import METRICS as KNOWN
    from rag.alerting.alert_texts import condition_text, value_text

    alert, state = watched.alert, watched.state
    checked = state.checked is not None
    return (
        alert.name,
        state.level if checked else "not checked",
        moment(state.since) if state.since is not None else "",
        value_text(state.value, KNOWN[alert.metric].unit) if checked else "",
        condition_text(alert),
        ", ".join(alert.channels),
        "; ".join(f"{notice.channel}: {notice.error}" for notice in troubles),
    )


def _show_preview(preview: Preview) -> None:
    from rag.alerting.alert_rules import METRICS as KNOWN
    from rag.alerting.alert_texts import condition_text, value_text
    from rag.tracing.figures import counted

    unit = KNOWN[preview.alert.metric].unit
    values = [check.state.value for check in preview.checks if check.state.value is not None]
    click.echo(f"{one_line(condition_text(preview.alert))}:")
    click.echo(f"{counted(len(preview.notices), 'notice')} of {counted(len(preview.checks), 'check')}.")
    if values:
        click.echo(f"Values from {value_text(min(values), unit)} to {value_text(max(values), unit)}.")
    if preview.notices:
        print_table(
            ("time", "level", "value", ""),
            [
                (moment(check.at), check.state.level, value_text(check.state.value, unit), check.event or "")
                for check in preview.notices
            ],
        )


def _state(check: Check) -> dict[str, Any]:
    return {"level": check.state.level, "before": check.before, "value": check.state.value}


def _show_sent(outcomes: Iterable[Sent]) -> None:
    for sent in outcomes:
        click.echo(f"{sent.notice.channel}: {one_line(sent.error) or 'sent'}")
