"""Files as people have them, what llmft says of each, and how many rows it keeps; ``docs/make_my_data.py`` shows them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import openpyxl

INTRODUCTION = """# My data: from an export to a training

```
python -m llmft preview data.path=qa.csv
```

That is all, whatever the file is (here `qa.csv`): CSV, TSV, XLSX, JSON, JSON Lines or Parquet (text formats also as `.gz` or `.zst`), a folder of them or a pattern. `preview` trains nothing. It says
in one line what the rows are taken for, shows the first rows as the model will see them, with what is trained in ⟦brackets⟧, and ends with what is worth knowing: rows that were dropped, duplicates,
lengths over the token budget, placeholders. If it looks right, train:

```
python -m llmft data.path=qa.csv model=smollm2_135m peft=lora
```

A tenth of the rows becomes the validation set. A file of your own is `data.val_path=FILE` or `data.test_path=FILE`, and a column `split` or lists of splits are used as they are
([data.md](data.md#train-validation-and-test-set)). Which model and learning rate: [hyperparameters.md](hyperparameters.md).

This page is generated from files that a test reads: every message on it is compared to the letter (`docs/make_my_data.py`).

## Shapes that are taken as they are

The options on the right are what is chosen for you; with them, nothing is guessed. What is said of encoding, delimiter and splits is below the row.

"""
NOTES = """
## What the audit notes

These rows are taken too, and one line each says what is odd about them, only where there is something:

"""
MESSAGES = """
## When llmft asks or refuses

It ends with exit code 2 before a model is loaded. A message says how many rows of how many, the first five places (`file:line`), the reason, and the option that lets them pass, if there is one. Options can
be pasted into a shell as they stand.

"""
KEYS = """
## The keys

| you want | append |
|---|---|
| to leave out rows with missing or blank fields | `data.invalid=drop` |
| numbers and booleans as text | `data.coerce=true` |
| to leave repeated rows out | `data.duplicates=drop` |
| to leave out validation prompts that occur in train | `data.leakage=drop data.near_duplicates=drop` |
| longer rows than 512 tokens of prompt and 512 of answer | `data.max_prompt_tokens=1024 data.max_answer_tokens=1024` |
| long prompts trimmed instead of dropped | `data.too_long=trim_prompt` |
| other columns | `data.columns.instruction=FIELD data.columns.output=FIELD`, and `input`, `system`, `history`, `reasoning`, `weight`, `id` |
| a system prompt for all rows | `data.system="You are a helpful assistant."` |
| every assistant turn trained, not only the last | `data.train_on_turns=all` |
| the first rows only, to try it | `data.limit=100` |

All of them: [reference.md](reference.md). Formats, sources and what is read of a row: [data.md](data.md). Conversations with reasoning and tools: [chat-data.md](chat-data.md).
"""


class Case(NamedTuple):
    """A file, the options besides its path, and what is said.

    Attributes:
        title: What it is, for the page.
        name: Name of the file.
        content: Rows for JSON lines, or the content of the file; of a spreadsheet, its cells as CSV.
        said: The lines on stderr and of the refusal.
        kept: Rows that are trained.
        options: Besides ``data.path``.
        notes: Of the audit.
        read_as: What its content decided about how it is read.
        advice: What the page says of a refusal.
    """

    title: str
    name: str
    content: str | bytes | Sequence[dict[str, Any]]
    said: str
    kept: int
    options: str = ""
    notes: tuple[str, ...] = ()
    advice: str = ""
    read_as: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the file."""
        content = self.content
        if self.name.endswith(".xlsx"):
            book = openpyxl.Workbook()
            for line in str(content).splitlines():
                book.worksheets[0].append(line.split(","))
            book.save(folder / self.name)
        elif isinstance(content, bytes):
            (folder / self.name).write_bytes(content)
        else:
            text = content if isinstance(content, str) else "".join(f"{json.dumps(row)}\n" for row in content)
            (folder / self.name).write_text(text, encoding="utf-8")

    def shown(self) -> str:
        """The first row, for the page; of a table the header too."""
        content = self.content
        if isinstance(content, bytes):
            content = content.decode("utf-16" if content.startswith(b"\xff\xfe") else "cp1252").replace("\t", "  ")
        if isinstance(content, str):
            return "\n".join(content.splitlines()[:2])
        return json.dumps(content[0], ensure_ascii=False)


QA = "data=custom data.columns.instruction=question data.columns.output=answer"
USER, REPLY = {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}
CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}]}  # fmt: skip
WRONG = {"role": "assistant", "content": "6"}


def _taken(name: str, kind: str, options: str, share: str = "its first 2 rows are such") -> str:
    return f"data.path={name}: {kind} ({share}); the same as {options}"


PREFERENCE = "preference rows, trained on the chosen answer, rejected is not read"

# Files that are taken as they are.
TAKEN = [
    Case("chat messages (OpenAI)", "chat.jsonl", [{"messages": [USER, REPLY]}] * 2, _taken("chat.jsonl", "chat messages", "data=academic"), 2),
    Case("a developer turn", "developer.jsonl", [{"messages": [{"role": "developer", "content": "Be brief."}, USER, REPLY]}] * 2,
         _taken("developer.jsonl", "chat messages", "data=academic"), 2),
    Case("tool calls and results", "tools.jsonl", [{"messages": [USER, CALL, {"role": "tool", "content": "5"}, REPLY], "tools": [{"name": "add"}]}] * 2,
         _taken("tools.jsonl", "chat messages", "data=academic"), 2),
    Case("content in parts", "parts.jsonl", [{"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "5"}]}]}] * 2,
         _taken("parts.jsonl", "chat messages", "data=academic"), 2),
    Case("messages as JSON text in a column", "chats.csv", 'id,messages\n1,"[{""role"": ""user"", ""content"": ""2 + 3?""}, {""role"": ""assistant"", ""content"": ""5""}]"\n',
         _taken("chats.csv", "chat messages", "data=academic", "its first row is such"), 1),
    Case("ShareGPT", "sharegpt.jsonl", [{"conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]}] * 2,
         _taken("sharegpt.jsonl", "chat messages", "data=custom data.columns.messages=conversations"), 2),
    Case("Alpaca, with and without an input", "alpaca.json", json.dumps([{"instruction": "Add.", "input": "2, 3", "output": "5"}, {"instruction": "2 + 3?", "output": "5"}, {"instruction": "2 + 3?", "input": None, "output": "5"}]),
         _taken("alpaca.json", "Alpaca instructions", "data=alpaca", "its first 3 rows are such"), 3),
    Case("Alpaca, the question in the input", "inputs.jsonl", [{"instruction": "", "input": "2 + 3?", "output": "5"}] * 2,
         _taken("inputs.jsonl", "Alpaca instructions", "data=alpaca"), 2),
    Case("Dolly: the input is named context", "dolly.jsonl", [{"instruction": "Add.", "context": "2, 3", "response": "5", "category": "math"}] * 2,
         _taken("dolly.jsonl", "questions and answers", "data=custom data.columns.instruction=instruction data.columns.input=context data.columns.output=response"), 2),
    Case("prompt and completion", "completions.jsonl", [{"prompt": "2 + 3?", "completion": "5"}] * 2,
         _taken("completions.jsonl", "questions and answers", "data=custom data.columns.instruction=prompt data.columns.output=completion"), 2),
    Case("a spreadsheet of questions and answers", "qa.csv", "question,answer\n2 + 3?,5\n1 + 1?,2\n", _taken("qa.csv", "questions and answers", QA), 2),
    Case("the same, separated by semicolons", "semicolons.csv", "Question;Answer\n2 + 3?;5\n1 + 1?;2\n",
         _taken("semicolons.csv", "questions and answers", "data=custom data.columns.instruction=Question data.columns.output=Answer"), 2,
         read_as=('semicolons.csv: fields are separated by ";" (data.delimiter=semicolon)',)),
    Case("Excel's Western European (cp1252)", "excel.csv", "Frage;Antwort\nWie groß?;Fünf Meter\nWo?;Überall\n".encode("cp1252"),
         _taken("excel.csv", "questions and answers", "data=custom data.columns.instruction=Frage data.columns.output=Antwort"), 2,
         read_as=('excel.csv: is Western European, not UTF-8: line 2 has "Wie groß?;Fünf Meter" (data.encoding=cp1252)',
                  'excel.csv: fields are separated by ";" (data.delimiter=semicolon)')),
    Case("UTF-16 (Excel's Unicode text)", "unicode.csv", "question\tanswer\n2 + 3?\t5\nWie groß?\tFünf Meter\n".encode("utf-16"),
         _taken("unicode.csv", "questions and answers", QA), 2,
         read_as=("unicode.csv: is UTF-16 (data.encoding=utf-16-le)", 'unicode.csv: fields are separated by "\\t" (data.delimiter=tab)')),
    Case("an Excel file (XLSX)", "sheet.xlsx", "question,answer\n2 + 3?,5\n1 + 1?,2\n",
         _taken("sheet.xlsx", "questions and answers", QA), 2),
    Case("a column that names the split", "splits.csv", "question,answer,split\n2 + 3?,5,train\n1 + 1?,2,validation\n",
         _taken("splits.csv", "questions and answers, split by their field split", f"{QA} data.split_by=column:split"), 2),
    Case("lists of splits", "splits.json", json.dumps({"train": [{"q": "2 + 3?", "a": "5"}], "valid": [{"q": "1 + 1?", "a": "2"}]}),
         _taken("splits.json", "questions and answers", "data=custom data.columns.instruction=q data.columns.output=a"), 2,
         read_as=("splits.json: names its splits: train (1), valid (1)",)),
    Case("rows below a key", "export.json", json.dumps({"data": [{"q": "2 + 3?", "a": "5"}, {"q": "1 + 1?", "a": "2"}]}),
         _taken("export.json", "questions and answers", "data=custom data.columns.instruction=q data.columns.output=a"), 2),
    Case("numbers as answers", "numbers.jsonl", [{"question": "2 + 3?", "answer": 5}] * 2,
         _taken("numbers.jsonl", "questions and answers, numbers as text", f"{QA} data.coerce=true"), 2),
    Case("text and label", "labels.csv", "text,label\nGreat!,good\nBroken.,bad\n",
         _taken("labels.csv", "questions and answers", "data=custom data.columns.instruction=text data.columns.output=label"), 2),
    Case("keywords in a cell", "keywords.csv", "question,answer_keywords\nWarm colours?,\"['red', 'orange']\"\nCold ones?,\"blue, green\"\n",
         _taken("keywords.csv", "questions with keywords as answers", "data=keyword_qa"), 2),
    Case("preference rows: texts", "dpo.jsonl", [{"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}] * 2,
         _taken("dpo.jsonl", PREFERENCE, "data=custom data.columns.instruction=prompt data.columns.output=chosen"), 2),
    Case("preference rows: turns", "dpo_turns.jsonl", [{"conversations": [{"from": "human", "value": "2 + 3?"}], "chosen": {"from": "gpt", "value": "5"}, "rejected": {"from": "gpt", "value": "6"}}] * 2,
         _taken("dpo_turns.jsonl", PREFERENCE, "data=custom data.columns.messages=conversations data.columns.output=chosen"), 2),
    Case("preference rows: conversations", "dpo_chats.jsonl", [{"chosen": [USER, REPLY], "rejected": [USER, WRONG]}] * 2,
         _taken("dpo_chats.jsonl", PREFERENCE, "data=custom data.columns.messages=chosen"), 2),
    Case("unfilled placeholders", "canned.jsonl", [{"prompt": f"Question {n}?", "completion": f"Dear {{{{customer}}}}, this is answer {n}."} for n in range(2)],
         _taken("canned.jsonl", "questions and answers", "data=custom data.columns.instruction=prompt data.columns.output=completion"), 2,
         notes=("2 of 2 rows have an unfilled placeholder such as {{customer}} (canned.jsonl:1)",)),
    Case("HTML in answers", "web.jsonl", [{"prompt": f"Question {n}?", "completion": f"<p>This is answer {n}.</p>"} for n in range(2)],
         _taken("web.jsonl", "questions and answers", "data=custom data.columns.instruction=prompt data.columns.output=completion"), 2,
         notes=("2 of 2 answers have HTML such as <p> (web.jsonl:1)",)),
]  # fmt: skip

# Files that need a word from you.
REFUSED = [
    Case("Two columns that could be either", "pairs.jsonl", [{"de": "Hund", "en": "dog"}] * 2,
         "data.path=pairs.jsonl: its rows can be read in several ways; choose one by its keys\n"
         "  - data=custom data.columns.instruction=de data.columns.output=en\n"
         '    prompt "Hund", answer "dog"\n'
         "  - data=custom data.columns.instruction=en data.columns.output=de\n"
         '    prompt "dog", answer "Hund"', 0,
         advice="Paste the options of the line that is meant behind the command."),
    Case("Fields that no one knows", "survey.jsonl", [{"col_1": "2 + 3?", "col_2": "5", "col_3": "math"}] * 2,
         "data.path=survey.jsonl: no field is known as a question, an answer or a conversation; there is col_1, col_2, col_3; name them: "
         "data.columns.instruction=FIELD data.columns.output=FIELD, or data.columns.messages=FIELD "
         '(the first row: {"col_1": "2 + 3?", "col_2": "5", "col_3": "math"})', 0,
         advice="Name them: `data.columns.instruction=col_1 data.columns.output=col_2` is enough."),
    Case("Texts without questions", "texts.jsonl", [{"id": 7, "text": "Water boils at 100 degrees."}] * 2,
         "data.path=texts.jsonl: its field text is a text without a question and an answer (there is id, text), and llmft trains answers to prompts: "
         "rows need two fields, such as question and answer, or a list of messages "
         '(the first row: {"id": 7, "text": "Water boils at 100 degrees."})', 0,
         advice="llmft trains answers to prompts. Such texts are for pretraining; write questions to them."),
    Case("Fields whose names only hint at it", "tickets.jsonl", [{"subject": "Sum", "customer_message": "2 + 3?", "agent_reply": "5"}] * 2,
         "data.path=tickets.jsonl: no field is known as a question, an answer or a conversation; there is subject, customer_message, agent_reply; name them: "
         "perhaps data.columns.instruction=customer_message data.columns.output=agent_reply "
         '(the first row: {"subject": "Sum", "customer_message": "2 + 3?", "agent_reply": "5"})', 0,
         advice="Paste the options if they are what you mean."),
    Case("One turn in each row", "turns.jsonl", [USER, REPLY],
         "data.path=turns.jsonl: each row is one turn (it has role, content), not a conversation; a row needs all turns of one, such as "
         '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}', 0,
         advice="One conversation alone is too little to learn from; of many, put the turns of each into one row."),
    Case("A few broken rows", "broken.jsonl", [{"question": f"{n} + 3?", "answer": "" if n in (1, 2) else str(n + 3)} for n in range(5)],
         _taken("broken.jsonl", "questions and answers", QA, "3 of the first 5 rows are such") + "\n"
         "data.path=broken.jsonl: 2 of 5 rows are refused; data.invalid=drop leaves them out (3 left)\n"
         '  - broken.jsonl:2, 3: answer: must not be blank, got "" (2 rows)', 0,
         advice="Repair the rows at these places, or append `data.invalid=drop`; `rejected.jsonl` of the run lists each row that was left out."),
    Case("Numbers among the answers", "mixed.jsonl", [{"question": "2 + 3?", "answer": "five"}, {"question": "1 + 1?", "answer": 2}],
         "data.path=mixed.jsonl: 1 of 2 rows is refused; data.invalid=drop leaves it out (1 left)\n"
         "  - mixed.jsonl:2: answer: must be text, got 2; data.coerce=true reads numbers as text", 0, QA,
         advice="With `data.path` alone, `data.coerce=true` is chosen for you; with columns of your own, append it."),
    Case("A wrong column", "support.jsonl", [{"question": "2 + 3?", "reply": "5", "topic": "math"}] * 2,
         "data.path=support.jsonl: all 2 rows are refused; data=custom data.columns.instruction=question data.columns.output=reply reads them (questions and answers)\n"
         "  - support.jsonl:1, 2: data.columns.output=answer: no such field; there is question, reply, topic (2 rows)", 0, QA,
         advice="The fields that there are stand in the message, and the options that read the rows."),
    Case("Another data set", "rows.jsonl", [{"instruction": "2 + 3?", "input": "", "output": "5"}] * 2,
         "data.path=rows.jsonl: all 2 rows are refused by data=academic; data=alpaca reads them (Alpaca instructions)\n"
         "  - rows.jsonl:1, 2: messages: is missing; there is instruction, input, output (2 rows)", 0, "data=academic",
         advice="Leave `data=` out, or take the one that is named. A data set is only named if it reads the rows."),
    Case("All rows are broken", "order.jsonl", [{"messages": [USER, USER, REPLY]}] * 2,
         "data.path=order.jsonl: chat messages (by their fields; none of the first 2 rows is accepted); the same as data=academic\n"
         "data.path=order.jsonl: all 2 rows are refused\n"
         '  - order.jsonl:1, 2: messages[1].role: must be assistant here, got "user" (2 rows)', 0,
         advice="No option helps: these conversations have no answer where one belongs. `messages[1]` is the second turn of the row."),
    Case("Broken JSON", "cut.jsonl", '{"question": "2 + 3?", "answer": "5"}\n{"question": "1 + 1?"\n',
         _taken("cut.jsonl", "questions and answers", QA, "its first row is such") + "\n"
         "data.path=cut.jsonl: 1 of 2 rows is refused; data.invalid=drop leaves it out (1 left)\n"
         "  - cut.jsonl:2: row: broken JSON: Expecting ',' delimiter", 0,
         advice="Often the end of an export that was cut off."),
    Case("Nearly all rows are dropped", "few.jsonl", [{"question": f"{n} + 3?", "answer": ""} for n in range(4)],
         "data.path=few.jsonl: questions and answers (by their fields; none of the first 4 rows is accepted); the same as " + QA + "\n"
         'data.path=few.jsonl: no row is left to train on (4 of 4 rows dropped: answer: must not be blank (4); e.g. few.jsonl:1: answer: must not be blank, got "")',
         0, "data.invalid=drop",
         advice="`data.invalid=drop` says what it drops, and stops where nothing is left."),
    Case("Repeated rows", "twice.jsonl", [{"messages": [USER, REPLY]}] * 3,
         _taken("twice.jsonl", "chat messages", "data=academic", "its first 3 rows are such") + "\n"
         "data.path=twice.jsonl: 2 of 3 rows are refused\n"
         "  - twice.jsonl:2, 3: duplicate: repeats twice.jsonl:1 (2 rows); data.duplicates=drop leaves repeats out, keep trains on them",
         0, "data.duplicates=error",
         advice="Repeats are kept, and counted in the audit, unless you forbid them."),
]  # fmt: skip
CASES = TAKEN + REFUSED
