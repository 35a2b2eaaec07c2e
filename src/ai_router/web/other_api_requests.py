"""Reading a request of another API than chat completions (client_apis/): the same checks, the same ChatRequest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_router.apis import ClientApi, ClientForm
from ai_router.dispatch.permission import check_fields
from ai_router.routing.prompt import job_in_headers, text_of
from ai_router.token_estimates import estimated_tokens
from ai_router.types import ChatRequest
from ai_router.web.policy import why_local_only
from ai_router.web.quality import wanted_quality
from ai_router.web.requests import Arrival, as_fragments, explains, model_of, organization_of, serialised


def parse_other_api_request(
    payload: dict[str, Any], arrival: Arrival, api: ClientApi, kept: Mapping[str, Any]
) -> ChatRequest:
    """The request. ``kept``: more for ClientForm.kept. Raises InvalidRequest naming the field that is wrong."""
    if arrival.key is not None:
        check_fields(payload, arrival.key)
    stream, asked, model = api.streams(payload), api.read(payload), model_of(payload)
    total_chars = sum(len(text_of(message)) for message in asked.messages)
    headers = {name.lower(): value for name, value in arrival.headers}
    return ChatRequest(
        request_id=arrival.request_id,
        session_id=arrival.session_id,
        timestamp=arrival.timestamp,
        arrived_at=arrival.arrived_at,
        model=arrival.deployment or asked.model or model,
        stream=stream,
        messages=asked.messages,
        messages_json=serialised("messages", list(asked.messages)),
        params=as_fragments(asked.params),
        date_context=arrival.date_context,
        total_chars=total_chars,
        task=asked.task or job_in_headers(headers.items()),
        wants_usage=True,
        client=arrival.client,
        organization=organization_of(arrival),
        key=arrival.key,
        trace=arrival.trace,
        searches=asked.searches,
        client_form=ClientForm(
            api,
            as_fragments(asked.client_fields),
            headers=_sent_on(headers, api),
            kept={**asked.kept, **kept},
            prompt_tokens=estimated_tokens(total_chars),
            arrived_at=arrival.arrived_at,
        ),
        warnings=asked.warnings,
        local_only=why_local_only(arrival, payload),
        quality=wanted_quality(arrival, payload),
        explains=explains(arrival.explain),
    )


def _sent_on(headers: Mapping[str, str], api: ClientApi) -> dict[str, str]:
    """Those of the client's headers that a backend of this API gets."""
    return {
        name: headers[name] for name in api.client_headers if headers.get(name, "").isprintable() and name in headers
    }
