"""The picture of the end of ``make run``: what of a recorded terminal is drawn."""

from tests.support.docs_scripts import docs_script

RECORDED = (
    'Script started on 2026-11-30 07:00:00+00:00 [COMMAND="x"]\r\n'
    "\x1b[?25l\rtraining 1/2 steps\x1b[2K\rtraining 2/2 steps\r\n\x1b[?25h"
    "a question of the log\r\n┌──────────┬───┐\r\n│\x1b[1m \x1b[0m\x1b[1mquestion\x1b[0m │ q │\r\n└──────────┴───┘\r\n\x1b[1;32mBetter\x1b[0m and/or worse\r\n"
    "\x1b[1mreport: \x1b[0m/home/someone/outputs/a/report.html\r\n\r\n"
    'Script done on 2026-11-30 07:04:00+00:00 [COMMAND_EXIT_CODE="0"]\n'
)


def test_the_image_begins_at_the_first_question_and_names_no_folder_of_the_machine():
    assert docs_script("make_run_image").ending(RECORDED).split("\n") == [
        "┌──────────┬───┐",
        "│\x1b[1m \x1b[0m\x1b[1mquestion\x1b[0m │ q │",
        "└──────────┴───┘",
        "\x1b[1;32mBetter\x1b[0m and/or worse",
        "\x1b[1mreport: \x1b[0moutputs/a/report.html",
    ]
