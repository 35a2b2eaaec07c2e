"""META: the background jobs of chat UIs and agents are recognised, and what only looks like one is a question."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_router.learning.examples import read_examples
from ai_router.routing.prompt import job_in_headers, job_in_messages

DATASETS = Path(__file__).parents[2] / "datasets"

OPEN_WEBUI = [
    ("Generate a concise title", "title_generation"),
    ("Generate a concise, 3-5 word title with an emoji summarizing the chat history.", "title_generation"),
    ("Generate 1-3 broad tags categorizing the main themes", "tags_generation"),
    ("Predict 3-5 useful messages the user may send", "follow_up_generation"),
    ("Suggest 3-5 relevant follow-up questions", "follow_up_generation"),
    (
        "Analyze the chat history to determine the necessity of generating search queries",
        "query_generation",
    ),
    ("You are an autocompletion system. Continue the text", "autocomplete_generation"),
    ("Generate a detailed prompt for am image generation task", "image_prompt_generation"),
    ("Summarize the conversation history that will be compacted", "context_compaction"),
]
TALK = "User: how do I prune an apple tree?\nAI: In winter, with a sharp saw."


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def told(system: str, content: str) -> list[dict[str, object]]:
    return [{"role": "system", "content": system}, *user(content)]


@pytest.mark.parametrize(("line", "job"), OPEN_WEBUI)
def test_open_webui_names_the_job_in_the_second_line(line: str, job: str) -> None:
    assert job_in_messages(user(f"### Task:\n{line}\n### Guidelines:\n- x")) == job
    assert job_in_messages(user([{"type": "text", "text": f"### Task:\n{line}"}])) == job


@pytest.mark.parametrize(
    ("messages", "job"),
    [
        # Shapes of particular clients, in words of our own around what tells them.
        (user(f"Provide a concise, 5-word-or-less title for the conversation.\n\n{TALK}"), "title_generation"),
        (
            user(
                f"Say the detected language of the conversation and a concise title in the detected language.\n{TALK}"
            ),
            "title_generation",
        ),
        (
            [*user("hello"), *user("Based on the chat history, give this conversation a name.\nShort, please.")],
            "title_generation",
        ),
        (user("Please make a four to five word title summarizing our conversation, no symbols"), "title_generation"),
        (user("Sum it up briefly in 200 words or less to use as a prompt for future context."), "summary_generation"),
        (told("You are a professional conversation summarizer. Make a concise title.", TALK), "title_generation"),
        (user(f"Please reply with a title for the chat that is 3-4 words in length.\n\n{TALK}"), "title_generation"),
        (told("You are a title generator. One line, nothing more.", "why is my build red"), "title_generation"),
        (
            told("Say whether this indicates a new conversation topic, as JSON with isNewTopic.", "hi"),
            "title_generation",
        ),
        (user(f"Your task is to create a detailed summary of this conversation.\n{TALK}"), "context_compaction"),
        (user("[SUGGESTION MODE: what would the user type next?]"), "follow_up_generation"),
        (
            user("From your immediately preceding response, decide who should logically speak next."),
            "next_speaker",
        ),
        # Clients that nobody has looked up.
        (user(f"Write a short title for this chat. Only the title, no quotes.\n\n{TALK}"), "title_generation"),
        (user(f"{TALK}\n\nGenerate three tags for the conversation above. Return only JSON."), "tags_generation"),
        (user(f"Suggest two follow-up questions for this thread. Nothing else.\n{TALK}"), "follow_up_generation"),
        (told("Produce a summary of the chat. No explanation.", TALK), "summary_generation"),
    ],
)
def test_a_job_is_known_by_its_words(messages: list[dict[str, object]], job: str) -> None:
    assert job_in_messages(messages) == job


@pytest.mark.parametrize(
    "content",
    [
        "### Task:\nRespond to the user query using the provided context, incorporating inline citations",
        "### Task:",
        "Generate a concise title",
        "give me a title for my essay on bees, no quotes",
        "Please look at this:\n### Task:\nGenerate a concise title",
        "summarize the conversation between Hamlet and the ghost",
        "write a title for my chat show",
        "how do I generate a summary of a chat in Slack?",
        "",
        None,
    ],
)
def test_what_only_looks_like_a_job_is_a_question(content: object) -> None:
    assert job_in_messages(user(content)) is None


def test_no_example_is_taken_for_a_job() -> None:
    paths = [path for part in ("train", "calibration", "test") for path in (DATASETS / part).glob("*.jsonl")]
    taken = [row.messages[-1]["content"] for row in read_examples(paths) if job_in_messages(row.messages)]
    assert taken == []


def test_an_agents_long_prompt_may_speak_of_titles() -> None:
    prompt = "You edit code. " * 200 + "At the end, write a summary of the session, and only the summary."
    assert job_in_messages(told(prompt, "rename the function")) is None


def test_a_tool_s_result_is_no_job() -> None:
    job = f"### Task:\n{OPEN_WEBUI[0][0]}"
    assert job_in_messages([*user(job), {"role": "tool", "content": "x"}]) is None
    assert job_in_messages([{"role": "assistant", "content": job}]) is None
    assert job_in_messages([]) is None


@pytest.mark.parametrize("name", ["X-Task", "X-OpenWebUI-Task", "x-router-task"])
@pytest.mark.parametrize("task", ["title_generation", "tags_generation", "follow_up_generation", "Query_Generation"])
def test_a_header_names_the_job(name: str, task: str) -> None:
    assert job_in_headers([("Accept", "*/*"), (name, task)]) == task.lower()


@pytest.mark.parametrize("value", ["", "{{TASK}}", "none", "moa_response_generation", "story_generation", "x" * 1000])
def test_other_values_name_none(value: str) -> None:
    assert job_in_headers([("X-Task", value)]) is None


def test_a_header_of_another_name_is_not_asked() -> None:
    assert job_in_headers([("X-Title", "title_generation")]) is None
