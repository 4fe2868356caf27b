"""A simple filter for what is asked and answered; the place to hook in a better one."""

import re
from collections.abc import Sequence


class Safety:
    """A block-list, the most characters, and a notice for people in a crisis. A hook, not a protection.

    A class of your own with these three methods takes its place: ``safety._target_=yourpackage.YourFilter
    allow_targets=[yourpackage]``.

    Args:
        blocked: Words and phrases, in any case, that no question and no answer may hold.
        max_question_characters: Of the last question.
        max_answer_characters: A longer answer is cut there.
        notice: What is put before the answer to a question that holds one of ``notice_words``.
        notice_link: Put behind the notice.
        notice_words: Words and phrases of a crisis, in any case.
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
        """Why a question is not answered, or None."""
        most = self.max_question_characters
        if most is not None and len(question) > most:
            return f"the question has {len(question)} characters; {most} are allowed"
        return "the question holds what this server's operator has blocked" if holds(question, self.banned) else None

    def notice(self, question: str) -> str | None:
        """What to put before the answer, or None."""
        return self.notice_text if self.notice_text and holds(question, self.notice_words) else None

    def without_notice(self, answer: str) -> str:
        """An earlier answer as the model gave it."""
        return answer.removeprefix(f"{self.notice_text}\n\n") if self.notice_text else answer


def holds(text: str, phrases: Sequence[str]) -> bool:
    """Whether a text holds one of these as whole words, in any case and with any white space in it."""
    words = ["\\s+".join(re.escape(word) for word in phrase.split()) for phrase in phrases]
    return any(re.search(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE) for pattern in words)
