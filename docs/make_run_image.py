"""``images/run.svg``: the end of a real ``make run`` in a terminal of 80 columns, from the first of its five test rows on.

python docs/make_run_image.py              runs `python -m llmft experiment=support` (minutes) and draws its end
python docs/make_run_image.py TYPESCRIPT   draws a run that `script` has recorded
"""

import re
import shlex
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS = 80
IMAGE = Path(__file__).parent / "images" / "run.svg"
NOT_COLOR = re.compile(r"\x1b\[\??[0-9;]*[A-Za-ln-z]")  # cursor and line; colors end in m
# rich's page, without the fonts that it would load
PAGE = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: Fira Code, Menlo, Consolas, monospace; font-size: {char_height}px; line-height: {line_height}px;
  font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def recorded() -> str:
    """What a terminal shows of `make run`."""
    command = f"stty cols {COLUMNS}; {shlex.quote(sys.executable)} -m llmft experiment=support"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "typescript"
        subprocess.run(["script", "-qec", command, str(file)], check=True)
        return file.read_text()


def ending(text: str) -> str:
    """The lines from the first question on, with their colors, and without the folder that it ran in."""
    text = re.sub(r"\n?Script (started|done) on [^\n]*\n?", "", text.replace("\r\n", "\n"))
    lines = [NOT_COLOR.sub("", line).rpartition("\r")[2] for line in text.split("\n")]
    first = next(
        number for number, line in enumerate(lines) if re.search(r"│\W*question", re.sub(r"\x1b\[[0-9;]*m", "", line))
    )
    shown = "\n".join(lines[first - 1 :]).strip("\n")
    return re.sub(r"/[^ \n]*?/(?=outputs/)", "", shown)


def draw(shown: str) -> None:
    """Write the image."""
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text.from_ansi(f"{shown}\n"))  # the image cuts the last line
    text = console.export_svg(title="make run", theme=MONOKAI, code_format=PAGE, unique_id="run")
    IMAGE.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    draw(ending(Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else recorded()))
