"""What a conversation must be to be trained on, whatever format it was written in."""

from __future__ import annotations

from tuneloom_data.conversations import Conversation, Message, RowError
from tuneloom_data.text import unwritable


def broken_rule(conversation: Conversation) -> RowError | None:
    """The first rule that a conversation breaks."""
    for index, message in enumerate(conversation.messages):
        if problem := _problem_of(message):
            return RowError(conversation.row, f"messages[{index}].content", problem)
    if problem := unwritable(list(conversation.tools)):
        return RowError(conversation.row, "tools", problem)
    assistant = [message for message in conversation.messages if message.role == "assistant"]
    if not assistant:
        return RowError(conversation.row, "messages", "no assistant turn, so there is nothing to learn; add the answer")
    if not any(message.trained for message in assistant):
        problem = "every assistant turn has weight 0; give at least one weight 1"
        return RowError(conversation.row, "messages", problem)
    return None


def _problem_of(message: Message) -> str:
    if problem := unwritable(message.content):
        return problem
    if message.content.strip() or (message.role == "assistant" and message.extra.get("tool_calls")):
        return ""
    return f"the {message.role} turn is empty"
