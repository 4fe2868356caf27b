"""Schema of ``chat``, ``serve`` and ``safety``."""

from typing import Annotated, Literal

from pydantic import Field

from llmft.config.schema.section import Absent, Section, TargetSection, absent
from llmft.config.schema.types import Count, EnvironmentVariable, FromZero, Must, Names, Positive, Text


class Chat(Section):
    """A conversation in the terminal."""

    compare: bool = Field(description="Show the base model's answer as well; /compare toggles it.")
    max_prompt_tokens: Count = Field(
        description="Maximum tokens of a prompt, fewer if the model has fewer positions; the oldest turns are dropped."
    )
    prefix_cache_mib: FromZero = Field(
        description="MiB of memory for keys and values of earlier turns, which are then not computed again; 0 keeps none."
    )


class Serve(Section):
    """The HTTP server."""

    engine: Literal["torch", "ctranslate2"] = Field(
        description="What decodes: torch, or CTranslate2 (extra llmft[ctranslate2]), faster on CPUs."
    )
    host: Text = Field(description="Address to listen on; 127.0.0.1 is this machine only, 0.0.0.0 all networks.")
    port: Annotated[int, Field(ge=0, lt=2**16), Must("a whole number from 0 to 65535")] = Field(
        description="Port; 0 picks a free one."
    )
    name: Text | None = Field(description="What clients call the model; null is <data>-<model>-<peft>.")
    base: bool = Field(
        description="Serve the base model of a run too; no extra memory with an adapter, a second model otherwise."
    )
    page: bool = Field(description="Serve the chat page at /.")
    key_env: EnvironmentVariable = Field(
        description="Environment variable with the API key; if it is not set, no key is required."
    )
    allow_no_key: bool = Field(description="Let other machines connect without a key.")
    hosts: Names = Field(
        description="Host names that it answers to; on this machine localhost, 127.0.0.1 and [::1] always."
    )
    origins: Names = Field(description="Origins of other web pages that may call it (CORS), e.g. https://example.org.")
    max_batch: Count = Field(description="Answers generated in parallel.")
    max_waiting: FromZero = Field(description="Answers that may wait; more get status 429.")
    prefix_cache_mib: FromZero = Field(
        description="MiB of memory for the keys and values of earlier prompts, which later prompts with the same prefix reuse; "
        "0 is off."
    )
    max_choices: Count = Field(description="Answers per request (n times its prompts).")
    max_body_bytes: Count = Field(description="Maximum size of a request; a larger one gets status 413.")
    max_prompt_tokens: Count = Field(description="Maximum tokens of a prompt; a longer one gets status 400.")
    max_answer_tokens: Count = Field(description="Maximum tokens that a request may ask for; more get status 400.")
    max_seconds: Positive = Field(description="Time limit for an answer, waiting included; then status 504.")
    body_seconds: Positive = Field(description="Time limit for a request to arrive; then status 408.")
    shutdown_seconds: FromZero = Field(description="Time for running answers after SIGTERM or Ctrl-C.")
    log_prompts: bool = Field(description="Log questions and answers.")


class Safety(TargetSection):
    """A filter of questions and answers; further keys are arguments of its class."""

    blocked: Absent[Names] = absent("Words and phrases that no question and no answer may contain, case-insensitive.")
    max_question_characters: Annotated[Count | None, Must("a whole number of at least 1, or null")] = absent(
        "Maximum length of the last question; a longer one is refused."
    )
    max_answer_characters: Annotated[Count | None, Must("a whole number of at least 1, or null")] = absent(
        "A longer answer is truncated."
    )
    notice: Text | None = absent("Text that is put before the answer to a question with one of notice_words.")
    notice_link: Text | None = absent("URL next to the notice, such as a helpline for your users.")
    notice_words: Absent[Names] = absent("Words that bring the notice.")
