"""A simple safety filter for questions and answers, and the interface for your own."""

import re
from collections.abc import Sequence


class Safety:
    """A block-list, length limits, and a notice for people in a crisis. A hook, not a protection.

    Your own class with these methods and the attributes ``banned`` and ``max_answer_characters`` replaces it:
    ``safety._target_=yourpackage.YourFilter allow_targets=[yourpackage]``.

    Args:
        blocked: Words and phrases that no question and no answer may contain, case-insensitive.
        max_question_characters: Max characters of the last question.
        max_answer_characters: Max characters of an answer; a longer one is truncated.
        notice: Text that precedes the answer to a question that contains one of ``notice_words``.
        notice_link: Appended to the notice.
        notice_words: Words and phrases of a crisis, case-insensitive.
    """

    def __init__(
        self,
        blocked: Sequence[str] = (),
        max_question_characters: int | None = None,
        max_answer_characters: int | None = None,
        notice: str | None = None,
        notice_link: str | None = None,
        notice_words: Sequence[str] = (),
    ) -> None:
        self.banned, self.max_answer_characters = list(blocked), max_answer_characters
        self.max_question_characters = max_question_characters
        self.notice_text = " ".join(part for part in (notice, notice_link) if part) if notice else None
        self.notice_words = list(notice_words)

    def refusal(self, question: str) -> str | None:
        """Why a question is refused, or None."""
        limit = self.max_question_characters
        if limit is not None and len(question) > limit:
            return f"the question has {len(question)} characters; {limit} are allowed"
        blocked = contains(question, self.banned)
        return "the question contains a phrase that this server's operator has blocked" if blocked else None

    def notice(self, question: str) -> str | None:
        """The text that precedes the answer, or None."""
        return self.notice_text if self.notice_text and contains(question, self.notice_words) else None

    def without_notice(self, answer: str) -> str:
        """An earlier answer without the notice, as the model generated it."""
        return answer.removeprefix(f"{self.notice_text}\n\n") if self.notice_text else answer


def contains(text: str, phrases: Sequence[str]) -> bool:
    """Whether a text contains one of the phrases as whole words, case-insensitive and with any white space."""
    words = ["\\s+".join(re.escape(word) for word in phrase.split()) for phrase in phrases]
    return any(re.search(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE) for pattern in words)
