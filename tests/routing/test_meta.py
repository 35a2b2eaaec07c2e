"""META: Open WebUI's background jobs, and what only looks like one."""

from __future__ import annotations

import pytest

from ai_router.routing.meta import task_in_headers, task_in_template

JOBS = [
    "Generate a concise title",
    "Generate a concise, 3-5 word title with an emoji summarizing the chat history.",
    "Generate 1-3 broad tags categorizing the main themes",
    "Predict 3-5 useful messages the user may send",
    "Suggest 3-5 relevant follow-up questions",
    "Analyze the chat history to determine the necessity of generating search queries",
    "You are an autocompletion system. Continue the text",
    "Generate a detailed prompt for am image generation task",
    "Summarize the conversation history that will be compacted",
]


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("second_line", JOBS)
def test_the_second_line_names_the_job(second_line: str) -> None:
    assert task_in_template(user(f"### Task:\n{second_line}\n### Guidelines:\n- x")) == second_line


def test_content_in_parts_is_read_too() -> None:
    assert task_in_template(user([{"type": "text", "text": f"### Task:\n{JOBS[0]}"}]))


@pytest.mark.parametrize(
    "content",
    [
        "### Task:\nRespond to the user query using the provided context, incorporating inline citations",
        "### Task:",
        "### Task:\n",
        "Generate a concise title",
        "Please look at this:\n### Task:\nGenerate a concise title",
        "",
        None,
    ],
)
def test_what_only_looks_like_a_job_is_a_question(content: object) -> None:
    assert task_in_template(user(content)) is None


def test_a_job_is_one_message_of_the_user() -> None:
    job = f"### Task:\n{JOBS[0]}"
    assert task_in_template([{"role": "system", "content": "x"}, *user(job)]) is None
    assert task_in_template([{"role": "assistant", "content": job}]) is None


@pytest.mark.parametrize("name", ["X-Task", "X-OpenWebUI-Task", "x-router-task"])
@pytest.mark.parametrize("task", ["title_generation", "tags_generation", "follow_up_generation", "Query_Generation"])
def test_a_header_names_the_job(name: str, task: str) -> None:
    assert task_in_headers([("Accept", "*/*"), (name, task)]) == task.lower()


@pytest.mark.parametrize("value", ["", "{{TASK}}", "none", "moa_response_generation", "x" * 1000])
def test_other_values_name_none(value: str) -> None:
    assert task_in_headers([("X-Task", value)]) is None


def test_a_header_of_another_name_is_not_asked() -> None:
    assert task_in_headers([("X-Title", "title_generation")]) is None
