"""Who is told of what: ``python deployments/automations.py [--webhook URL | --block TYPE/NAME]``.

Puts the automations of ``automations.yaml`` on the Prefect server: messages when a study fails, when
a metric moves, and when no run has finished for a day. Applied again it changes what is different
and leaves the rest as it is, and what a person has switched off stays off.

A message is a POST of JSON to the URL, which is kept on the server in the block ``webhook/diffatlas``
and in no file; without ``--webhook`` it is taken from `DIFFATLAS_WEBHOOK`, or from the block that an
earlier call has made. Or it goes through a notification block of yours (``slack-webhook/team``,
``sendgrid-email/me``): ``--block``.

Exit codes: 2 the file or an option is wrong; 3 there is no Prefect server.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, field_validator

from deployments.schedules import ScheduleError, plain_list
from deployments.serve import running_server
from diffusion.errors import DiffatlasError, WrongInput
from flows.exit_codes import exit_code_of
from flows.services import quiet_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from prefect.events.schemas.automations import AutomationCore

SHIPPED_AUTOMATIONS = Path(__file__).resolve().with_name("automations.yaml")
VARIABLE = "DIFFATLAS_WEBHOOK"
BLOCK = "diffatlas"
"""The name of the webhook's block."""

_PAYLOAD = """\
{{% set subject %}}{subject}{{% endset %}}{{% set text %}}{text}{{% endset -%}}
{{"subject": {{{{ subject | tojson }}}}, "text": {{{{ text | tojson }}}}, "automation": {{{{ automation.name | tojson }}}}, \
"event": {{{{ (event.event or "") | tojson }}}}, "payload": {{{{ (event.payload or {{}}) | tojson }}}}}}"""


class WrongBlock(WrongInput):
    """The block that messages should go through is not there, or cannot send any."""

    kind = "wrong-block"


class Told(BaseModel):
    """One entry of the file: when somebody is told, and what."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    trigger: dict[str, Any]
    subject: Annotated[str, Field(min_length=1)]
    text: Annotated[str, Field(min_length=1)]

    @field_validator("trigger")
    @classmethod
    def _as_prefect_reads_it(cls, value: dict[str, Any]) -> dict[str, Any]:
        from prefect.events.schemas.automations import TriggerTypes

        found: Any = TypeAdapter(TriggerTypes).validate_python(value)
        if unknown := sorted(set(value) - set(type(found).model_fields)):
            raise ValueError(f"unknown key {', '.join(unknown)} (there are: {', '.join(type(found).model_fields)})")
        return value

    @field_validator("subject", "text")
    @classmethod
    def _a_template(cls, value: str) -> str:
        from prefect.server.utilities.user_templates import validate_user_template

        try:
            validate_user_template(value)
        except Exception as error:  # noqa: BLE001 - of jinja's or of Prefect's
            raise ValueError(f"not a template: {error}") from None
        return value

    def automation(self, block: UUID, *, webhook: bool) -> AutomationCore:
        """What Prefect is given; messages go through the block."""
        from prefect.events.actions import CallWebhook, SendNotification
        from prefect.events.schemas.automations import AutomationCore

        action: CallWebhook | SendNotification
        if webhook:
            payload: Any = _PAYLOAD.format(subject=self.subject, text=self.text)
            action = CallWebhook(block_document_id=block, payload=payload)
        else:
            action = SendNotification(block_document_id=block, subject=self.subject, body=self.text)
        about = {"name": self.name, "description": self.description, "trigger": self.trigger}
        return AutomationCore.model_validate({**about, "actions": [action]})


def read_automations(file: Path = SHIPPED_AUTOMATIONS) -> list[Told]:
    """The entries of a file. Raises `ScheduleError` with every problem."""
    entries: list[Told] = []
    problems: list[str] = []
    for number, values in enumerate(
        plain_list(file, "`- {name: ..., trigger: {...}, subject: ..., text: ...}`"), start=1
    ):
        name = values.get("name") if isinstance(values, dict) else None
        place = f"entry {number}{f' ({name})' if name else ''}"
        try:
            entries.append(Told.model_validate(values))
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                where = ".".join(str(part) for part in detail["loc"]) or "entry"
                problems.append(f"{place}: {where}: {detail['msg'].removeprefix('Value error, ')}")
    for name, times in Counter(entry.name for entry in entries).items():
        if times > 1:
            problems.append(f"{name!r} names {times} entries")
    if problems:
        raise ScheduleError(str(file), problems)
    return entries


def block_of(url: str | None, name: str | None) -> tuple[UUID, bool]:
    """The id of the block that messages go through, and whether it is a webhook.

    Args:
        url: where messages are posted; kept in the block ``webhook/diffatlas``.
        name: of another block, ``TYPE/NAME``. Without either, the webhook that is there.

    Raises:
        WrongBlock: there is no such block, or it can send nothing.
    """
    from prefect.blocks.webhook import Webhook
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    if url and not url.startswith(("http://", "https://")):
        raise WrongBlock(f"--webhook or {VARIABLE}: expected an address that begins with http:// or https://")
    if url:
        headers: Any = {"Content-Type": "application/json"}
        saved: Any = Webhook(url=SecretStr(url), headers=headers).save(BLOCK, overwrite=True)
        return saved, True
    kind, _, called = (name or f"webhook/{BLOCK}").partition("/")
    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(called, kind, include_secrets=False)
        except ObjectNotFound:
            how = (
                "`prefect block ls` lists them"
                if name
                else f"say where messages go: --webhook URL, {VARIABLE} or --block"
            )
            raise WrongBlock(f"there is no block {kind}/{called}: {how}") from None
    able = (document.block_schema.capabilities if document.block_schema else None) or []
    if kind != "webhook" and "notify" not in able:
        raise WrongBlock(f"block {kind}/{called} sends no messages: expected a webhook or a notification block")
    return document.id, kind == "webhook"


def apply(automation: AutomationCore) -> str:
    """Put an automation on the server: made, changed, or as it was."""
    from prefect.client.orchestration import get_client

    facts = {"name", "description", "trigger", "actions"}
    with get_client(sync_client=True) as client:
        there = client.read_automations_by_name(automation.name)
        if not there:
            client.create_automation(automation)
            return "made"
        known = there[0]
        if known.model_dump(include=facts) == automation.model_dump(include=facts):
            return "unchanged"  # a switch that waits would begin anew
        client.update_automation(known.id, automation.model_copy(update={"enabled": known.enabled}))
        return "changed"


def main(arguments: Sequence[str] | None = None) -> None:
    """Apply every entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--file", type=Path, default=SHIPPED_AUTOMATIONS, help="the automations (default: %(default)s)")
    parser.add_argument("--webhook", metavar="URL", help=f"where messages are posted (default: {VARIABLE})")
    parser.add_argument("--block", metavar="TYPE/NAME", help="a notification block that sends them instead")
    options = parser.parse_args(arguments)
    quiet_environment()
    try:
        entries = read_automations(options.file)
        server = running_server()
        url = options.webhook or (None if options.block else os.environ.get(VARIABLE))
        if options.webhook and options.block:
            raise WrongBlock("--webhook and --block: one of them")
        block, webhook = block_of(url, options.block)
        for entry in entries:
            print(f"{apply(entry.automation(block, webhook=webhook))}: {entry.name}", file=sys.stderr)  # noqa: T201
    except DiffatlasError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the message for the person at the terminal
        sys.exit(exit_code_of(error))
    print(f"{len(entries)} automations at {server}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
