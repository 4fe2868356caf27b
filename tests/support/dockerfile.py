"""The stages of the Dockerfile, with what they copy and run."""

import re
from dataclasses import dataclass, field

from tests.conftest import ROOT


@dataclass
class Stage:
    """One ``FROM``: the image or stage that it is made from, and its instructions by name, each text without line breaks."""

    source: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def of(self, name: str) -> list[str]:
        return [text for instruction, text in self.instructions if instruction == name]

    @property
    def run(self) -> list[str]:
        return self.of("RUN")


def stages() -> dict[str, Stage]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            source, _, stage = rest.partition(" AS ")
            found[stage] = Stage(source)
        elif found and name:
            found[list(found)[-1]].instructions.append((name, " ".join(rest.split())))
    return found
