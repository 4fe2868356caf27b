"""The chat page in a real browser: answers, comparison, copy, stop; model output stays text."""

import time

import pytest

from tests.support.browser import browser, needs_browser, violations  # noqa: F401  (a fixture)
from tests.support.server import generator, serving

pytestmark = needs_browser
HTML = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


def answering(text, name="tiny_llama"):
    """A model that always generates this text."""
    made = generator(name, max_new_tokens=len(text.encode()) + 5)
    ids = [*made.codec.tokenizer(text, add_special_tokens=False)["input_ids"], made.codec.stop_id]
    plain = made.model.generate

    def scripted(**inputs):
        """The real decoding loop, with one possible token at each step."""
        streams = inputs["stopping_criteria"][0].streams

        def force(_, scores):
            scores[:] = -1e9
            for row, stream in enumerate(streams):
                scores[row, ids[min(len(stream.ids), len(ids) - 1)]] = 0
            return scores

        inputs["logits_processor"].insert(0, force)
        return plain(**inputs)

    made.model.generate = scripted
    return made


@pytest.fixture
def opened(browser):  # noqa: F811
    """A page of a server: ``page, made = opened({...})``."""
    closing = []

    def make(generators, *, path="", context=None, **options):
        server = serving(generators, **options)
        made = server.__enter__()
        closing.append(lambda: server.__exit__(None, None, None))
        room = browser.new_context(**(context or {}))
        page = room.new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda message: message.type == "error" and page.faults.append(message.text))
        page.goto(made.url + path)
        closing.append(room.close)
        return page, made

    yield make
    for close in reversed(closing):
        close()


def ask(page, text):
    page.fill("#question", text)
    page.press("#question", "Enter")


def until(page, condition):
    """Wait; the browser's own way needs eval, which the page's policy forbids."""
    end = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def answers(page):
    until(page, "document.querySelectorAll('.sides').length && !document.querySelector('.busy')")
    return page.locator(".sides .text").all_text_contents()


def test_both_models_answer_side_by_side(opened):
    models = {"mine": generator("tiny_llama"), "plain": generator("tiny_gpt2")}
    page, made = opened(models, system="Be kind.")
    from llmft.data.records import Turn

    page.check("#compare")
    ask(page, "What is a llama?")
    context = (Turn("system", "Be kind."), Turn("user", "What is a llama?"))
    assert answers(page) == [model.answers([context])[0].text for model in made.generators.values()]
    assert page.locator(".who").all_text_contents() == ["mine (tuned)", "plain (base)"]
    assert page.locator("#status").text_content().startswith("Answer: ")
    assert page.evaluate("document.activeElement.id") == "question"
    # the next question continues each model's own answers
    ask(page, "More")
    until(page, "document.querySelectorAll('.sides').length == 2 && !document.querySelector('.busy')")
    said = page.locator(".sides .text").all_text_contents()
    for number, (name, model) in enumerate(made.generators.items()):
        turns = [*context, Turn("assistant", said[number]), Turn("user", "More")]
        assert model.answers([turns])[0].text == said[2 + number], name
    assert page.faults == []


def test_model_output_and_questions_are_text(opened):
    page, _ = opened({"<b>mine</b>": answering(HTML)}, system=HTML)
    ask(page, HTML)
    assert answers(page) == [HTML]
    assert page.locator(".mine .text").text_content() == HTML
    assert page.locator("main img, main script, main b").count() == 0
    assert page.title() == "<b>mine</b> - llmft chat"
    assert page.faults == []


def test_parameters_stop_copy_and_a_new_conversation(opened):
    context = {"permissions": ["clipboard-read", "clipboard-write"]}
    page, _ = opened(
        {"mine": generator("tiny_llama", max_new_tokens=12)}, context=context, max_answer_tokens=4000, max_seconds=600
    )
    page.click("summary")
    page.fill("#max_tokens", "3")
    ask(page, "Hi")
    first = answers(page)[0]
    assert "cut at max tokens. 3 tokens" in page.locator(".foot span").text_content()
    page.click("button:has-text('Copy')")
    page.wait_for_selector("button:has-text('Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == first
    page.fill("#max_tokens", "3000")
    ask(page, "Hi")
    page.wait_for_selector("#stop:not([hidden])")
    until(page, "document.querySelectorAll('.sides')[1].querySelector('.text').textContent")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('.busy')")
    assert page.locator(".foot span").all_text_contents()[1] == "stopped"
    page.fill("#temperature", "7")  # over its maximum: the browser says so, nothing is sent
    ask(page, "Hi")
    assert page.locator(".sides").count() == 2
    page.click("#new")
    assert page.locator(".sides").count() == 0
    assert page.faults == []


def test_the_key_is_requested_and_kept_in_the_tab_only(opened):
    page, _ = opened({"mine": generator("tiny_llama")}, key="sk-test")
    page.wait_for_selector("#locked[open]")
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    page.wait_for_selector("#locked[open]")
    page.fill("#key", "sk-test")
    page.press("#key", "Enter")
    until(page, "document.title.startsWith('mine')")
    ask(page, "Hi")
    assert answers(page)[0]
    assert page.evaluate("Object.keys(localStorage).length") == 0


def test_a_single_turn_model_gets_only_the_question_and_a_note_says_so(opened):
    from llmft.data.records import Turn

    page, made = opened({"mine": generator("tiny_t5")})
    assert "each is answered without the earlier turns" in page.locator(".note").text_content()
    ask(page, "Hi")
    answers(page)
    ask(page, "Why?")
    until(page, "document.querySelectorAll('.sides').length == 2 && !document.querySelector('.busy')")
    assert (
        page.locator(".sides .text").all_text_contents()[1]
        == made.generators["mine"].answers([(Turn("user", "Why?"),)])[0].text
    )


def test_the_oldest_turns_are_dropped_and_a_note_says_so(opened):
    page, _ = opened({"mine": generator("tiny_llama")}, max_prompt_tokens=160)
    for number in range(3):
        ask(page, "x" * 60)
        until(page, f"document.querySelectorAll('.sides').length == {number + 1} && !document.querySelector('.busy')")
    assert "dropped: context limit" in page.locator(".foot span").all_text_contents()[-1]


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (390, "dark"), (1200, "light")])
def test_it_fits_and_every_control_has_a_name(width, scheme, opened):
    page, _ = opened(
        {"mine": answering("word " * 60 + "x" * 300), "plain": generator("tiny_gpt2")},
        context={"viewport": {"width": width, "height": 700}, "color_scheme": scheme},
    )
    page.click("summary")
    ask(page, "y" * 400)
    answers(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelector('main').scrollWidth <= document.querySelector('main').clientWidth")
    box = page.locator("#send").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert box["y"] + box["height"] <= 700
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, textarea, main, dialog')].filter(e =>
        !(e.textContent.trim() || e.getAttribute('aria-label') || (e.labels && e.labels.length) || e.getAttribute('aria-labelledby'))).length"""
    )
    assert unnamed == 0
    assert violations(page) == {}


def test_the_keyboard_reaches_everything(opened):
    page, _ = opened({"mine": generator("tiny_llama"), "plain": generator("tiny_gpt2")})
    until(page, "document.title.startsWith('mine')")
    page.evaluate("document.querySelector('.skip').focus()")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"compare", "new", "SUMMARY", "question", "send"} <= set(reached)


def test_the_page_needs_no_other_file(opened):
    page, made = opened({"mine": generator("tiny_llama")})
    asked = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(made.url)))
    page.reload()
    until(page, "document.title.startsWith('mine')")
    assert asked == ["/", "/settings"]
