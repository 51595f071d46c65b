"""The chat client against a server on this machine that misbehaves in every way we know of."""

import contextlib
import http.server
import json
import socket
import threading
import time

import pytest

from graphfm.graphllm import BudgetError, ChatClient, ChatError, OpenAIChat, Usage
from graphfm.graphllm.backends.asking import ask_all
from graphfm.graphllm.backends.post import _seconds

HELLO = [{"role": "user", "content": "hello"}]


def completion(text, prompt=7, completion=3):
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage})


class Script:
    """Answers requests by a script; the last entry repeats. Remembers what came, and how many at a time."""

    def __init__(self, *steps):
        self.steps, self.bodies, self.headers, self.times = list(steps), [], [], []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def handle(self, request):
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            self.times.append(time.monotonic())
            step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        left = []

        def leave():
            with self.lock:
                self.at_once -= not left
                left.append(True)

        # Told before the last byte goes out: the client may well be back before this thread runs again.
        request.leave = leave
        try:
            step(request, body)
        finally:
            leave()


def reply(content, status=200, kind="application/json", delay=0.0, **headers):
    def step(request, body):
        time.sleep(delay)
        blob = (content(body) if callable(content) else content).encode()
        request.send_response(status)
        request.send_header("Content-Type", kind)
        for key, value in headers.items():
            request.send_header(key.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(blob)))
        request.end_headers()
        request.leave()
        request.wfile.write(blob)

    return step


def breaks_off(request, body):
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b'{"choices"')


def drips(request, body):
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(40):
            request.wfile.write(b" ")
            time.sleep(0.05)


@pytest.fixture
def serve():
    """Start a server that follows a script; gives its address and the script."""
    servers = []

    def start(*steps):
        script = Script(*steps)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                assert self.path == "/v1/chat/completions"
                script.handle(self)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1", script

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def client(url, **settings):
    return OpenAIChat(url, "some-model", **{"backoff": 0.01, "timeout": 5, "retries": 2} | settings)


def test_what_is_sent_and_what_comes_back(serve):
    url, script = serve(reply(completion("hi")))
    chat = client(url + "/", key="secret", prices=(1.0, 10.0), extra={"seed": 5})
    assert isinstance(chat, ChatClient)
    answer = chat.complete(HELLO, max_tokens=9)
    assert (answer.text, answer.usage) == ("hi", Usage(7, 3, (7 * 1 + 3 * 10) / 1e6, 1))
    assert script.bodies == [{"model": "some-model", "messages": HELLO, "max_tokens": 9, "temperature": 0.0, "seed": 5}]
    assert script.headers[0]["Authorization"] == "Bearer secret"
    chat.complete(HELLO)
    assert chat.spent == Usage(14, 6, pytest.approx(74e-6), 2)
    assert "secret" not in chat.name


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_failures_of_the_moment_are_tried_again(serve, status):
    url, _ = serve(reply("busy", status), reply("busy", status), reply(completion("hi")))
    answer = client(url).complete(HELLO)
    assert (answer.text, answer.usage.requests) == ("hi", 3)
    with pytest.raises(ChatError, match=rf"answers {status} .*busy \(after 1 tries\)"):
        client(serve(reply("busy", status))[0], retries=0).complete(HELLO)


def test_an_answer_that_breaks_off_or_no_connection_is_tried_again(serve):
    url, script = serve(breaks_off, reply(completion("hi")))
    assert client(url).complete(HELLO).text == "hi"
    assert len(script.bodies) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_other_failures_are_errors_at_once(serve, status):
    url, script = serve(reply('{"error": "no such model"}', status))
    with pytest.raises(ChatError, match=rf"answers {status} .*no such model"):
        client(url).complete(HELLO)
    assert len(script.bodies) == 1


def test_waits_double_and_are_partly_random(serve, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", lambda seconds: waits.append(seconds) if seconds else None)
    url, _ = serve(reply("busy", 503))
    with pytest.raises(ChatError):
        client(url, retries=6, backoff=1.0, longest_wait=20).complete(HELLO)
    assert len(waits) == 6
    assert all(0.5 * 2**i <= wait <= min(2**i, 20) for i, wait in enumerate(waits))
    assert len({wait / 2**i for i, wait in enumerate(waits[:4])}) == 4


def test_retry_after_is_honoured(serve):
    url, script = serve(reply("slow down", 429, Retry_After="0.3"), reply(completion("hi")))
    assert client(url).complete(HELLO).text == "hi"
    assert script.times[1] - script.times[0] >= 0.3
    url, script = serve(reply("slow down", 429, Retry_After="3600"))
    with pytest.raises(ChatError, match="asks to wait 3600 s, longest_wait is 120 s"):
        client(url).complete(HELLO)
    assert len(script.bodies) == 1


def test_retry_after_as_seconds_or_date():
    assert (_seconds("2.5"), _seconds(None), _seconds("soon"), _seconds("-1")) == (2.5, None, None, 0.0)
    moment = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert 95 < _seconds(moment) <= 100


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (reply("<!doctype html><title>Sign in</title>", kind="text/html"), "a web page: .*Sign in.*often with /v1"),
        (reply("no idea"), "no JSON: 'no idea'"),
        (reply(""), "no JSON"),
        (reply("[1, 2]"), "no chat completion but '\\[1, 2\\]'"),
        (reply('{"error": "overloaded"}'), "no chat completion but .*overloaded"),
        (reply('{"choices": []}'), "no chat completion"),
        (reply('{"choices": [{"message": {"content": 5}}]}'), "no chat completion"),
        (reply('{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": -1}}'), "no chat completion"),
        (reply('{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "x"}}'), "no chat completion"),
    ],
)
def test_answers_that_are_none(serve, step, words):
    url, script = serve(step)
    with pytest.raises(ChatError, match=words):
        client(url).complete(HELLO)
    assert len(script.bodies) == 1


def test_a_model_that_says_nothing_gives_an_empty_text(serve):
    url, _ = serve(reply('{"choices": [{"message": {"content": null}}]}'))
    assert client(url).complete(HELLO).text == ""


@pytest.mark.parametrize("step", [reply(completion("late"), delay=1.0), drips])
def test_a_server_that_is_slow(serve, step):
    url, script = serve(step)
    with pytest.raises(ChatError, match=r"says nothing for 0.2 s; raise timeout.*after 2 tries"):
        client(url, timeout=0.2, retries=1).complete(HELLO)
    assert len(script.bodies) == 2


def test_a_server_that_is_down():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ChatError, match=r"cannot be reached \(.*refused.*\).* running\? \(after 2 tries\)"):
        client(f"http://127.0.0.1:{port}/v1", retries=1).complete(HELLO)
    with pytest.raises(ChatError, match="cannot be reached"):
        client("http://nowhere.invalid/v1", retries=0).complete(HELLO)


def test_answers_are_kept_by_content(serve, tmp_path):
    url, script = serve(reply(completion("one")), reply(completion("two")))
    chat = client(url, cache=tmp_path, prices=(1, 1))
    assert [chat.complete(HELLO).text for _ in range(3)] == ["one"] * 3
    assert chat.complete(HELLO).usage == Usage()
    assert client(url, cache=tmp_path).complete(HELLO).text == "one"
    assert len(script.bodies) == 1
    for other in ({"max_tokens": 5}, {"temperature": 0.5}, {"temperature": 0.5}):
        assert chat.complete(HELLO, **other).text == "two"
    assert len(script.bodies) == 4  # a warm answer is drawn anew each time
    assert client(url, cache=tmp_path, extra={"seed": 1}).complete(HELLO).text == "two"
    assert not any("hello" in path.read_text() for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize("damage", ["half", "empty", "altered", "list", "dear", "more"])
def test_a_damaged_answer_is_asked_for_again(serve, tmp_path, damage):
    url, script = serve(reply(completion("one")))
    client(url, cache=tmp_path).complete(HELLO)
    (path,) = tmp_path.rglob("*.json")
    text = path.read_text()
    path.write_text(
        {
            "half": text[: len(text) // 2],
            "empty": "",
            "altered": text.replace("one", "two"),
            "list": "[]",
            "dear": text.replace('"price": 0.0', '"price": "much"'),
            "more": text.replace('"price"', '"prize"'),
        }[damage]
    )
    with pytest.warns(UserWarning, match="damaged"):
        assert client(url, cache=tmp_path).complete(HELLO).text == "one"
    assert client(url, cache=tmp_path).complete(HELLO).text == "one"
    assert len(script.bodies) == 2


def conversations(count):
    return [[{"role": "user", "content": f"number {i}"}] for i in range(count)]


def test_many_at_once_but_no_more_than_asked(serve):
    url, script = serve(reply(lambda body: completion(body["messages"][0]["content"]), delay=0.05))
    chat = client(url, concurrency=3)
    found = dict(chat.complete_all(conversations(12)))
    assert {i: answer.text for i, answer in found.items()} == {i: f"number {i}" for i in range(12)}
    assert script.most_at_once == 3
    assert chat.spent.requests == 12
    # Threads of the caller's own share the limit.
    script.most_at_once = 0
    threads = [threading.Thread(target=chat.complete, args=(HELLO,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert script.most_at_once <= 3


@pytest.mark.parametrize("step", [reply("no such model", status=404), reply("<html>", kind="text/html")])
def test_a_server_that_never_answers_is_not_asked_for_everything(serve, step):
    url, script = serve(step)
    came = []
    with pytest.raises(ChatError, match="3 conversations in a row have no answer; nothing more is sent"):
        for pair in client(url, concurrency=2).complete_all(conversations(200)):
            came.append(pair)
    assert all(isinstance(answer, ChatError) for _, answer in came)
    assert 3 <= len(came) == len(script.bodies) <= 4, "those under way come to their end"
    with pytest.raises(ChatError, match="2 conversations in a row"):
        ask_all(client(url, give_up=2, concurrency=1), [f"number {i}" for i in range(200)], 5)


def test_failures_that_are_not_in_a_row_stop_nothing(serve):
    steps = [reply("<html>", kind="text/html"), reply(completion("hi"))] * 6
    url, script = serve(*steps)
    found = dict(client(url, concurrency=1, give_up=2).complete_all(conversations(12)))
    assert len(script.bodies) == 12
    assert sum(isinstance(answer, ChatError) for answer in found.values()) == 6


def test_answers_from_the_disk_do_not_hide_that_a_server_is_down(serve, tmp_path):
    url, script = serve(*[reply(completion("hi"))] * 20, reply("no such model", status=404))
    chat = client(url, cache=tmp_path, concurrency=1)
    known, unknown = conversations(20), [[{"role": "user", "content": f"new {i}"}] for i in range(20)]
    assert len(dict(chat.complete_all(known))) == 20
    mixed = [one for both in zip(known, unknown, strict=True) for one in both]
    with pytest.raises(ChatError, match="3 conversations in a row"):
        list(chat.complete_all(mixed))
    assert len(script.bodies) == 20 + 3


def test_a_reset_after_the_request_may_be_charged_and_lost_tries_are_in_the_cost(serve):
    def resets(request, body):
        request.connection.close()

    url, script = serve(resets, reply(completion("hi", prompt=1, completion=1)))
    chat = client(url, prices=(0.0, 1e6))
    answer = chat.complete(HELLO, max_tokens=50)
    assert answer.usage.requests == len(script.bodies) == 2
    assert answer.usage.price == chat.spent.price == 51.0


@pytest.mark.parametrize(
    ("step", "charged"),
    [
        (reply("try again", status=503), False),
        (reply("who are you", status=401), False),
        (breaks_off, True),
        (drips, True),
        (reply("<html>", kind="text/html"), True),
        (reply('{"choices": []}'), True),
    ],
)
def test_what_may_have_been_written_may_be_charged(serve, step, charged):
    """A server that bills answers which never arrive must not outrun the budget."""
    url, script = serve(step)
    chat = client(url, prices=(0.0, 1e6), timeout=0.3, retries=1)
    with pytest.raises(ChatError):
        chat.complete(HELLO, max_tokens=50)
    assert chat.spent.requests == len(script.bodies)
    assert chat.spent.price == (50 * len(script.bodies) if charged else 0)


def test_what_is_kept_costs_nothing_now_and_tells_what_it_cost(serve, tmp_path):
    url, _ = serve(reply(completion("one", prompt=10, completion=2)))
    first = client(url, cache=tmp_path, prices=(1e6, 1e6)).complete(HELLO)
    assert first.usage == first.cost == Usage(10, 2, 12.0, 1)
    chat = client(url, cache=tmp_path)
    again = chat.complete(HELLO)
    assert (again.usage, again.cost, chat.spent) == (Usage(), Usage(10, 2, 12.0, 1), Usage())
    seen = []
    answers, cost = ask_all(chat, ["hello", "hello"], 256, lambda *pair: seen.append(pair))
    assert (answers, cost) == (["one", "one"], Usage(10, 2, 12.0, 1))
    assert seen == [("hello", again)]


def test_one_bad_answer_does_not_stop_the_others(serve):
    url, _ = serve(reply("<html>", kind="text/html"), reply(completion("hi")))
    found = [answer for _, answer in client(url, concurrency=1).complete_all(conversations(4))]
    assert sum(isinstance(answer, ChatError) for answer in found) == 1
    assert [answer.text for answer in found if not isinstance(answer, ChatError)] == ["hi"] * 3


def test_the_budget_stops_cleanly_and_a_larger_one_goes_on(serve, tmp_path):
    url, script = serve(reply(completion("hi", prompt=10, completion=10), delay=0.01))
    settings = {"prices": (1e6, 1e6), "cache": tmp_path, "concurrency": 4}  # one unit a token
    chat = client(url, budget=200, **settings)
    got = []
    with pytest.raises(BudgetError, match=r"budget is 200, of which .* is spent"):
        for index, answer in chat.complete_all(conversations(30), max_tokens=10):
            got.append((index, answer.text))
    assert chat.spent.price <= 200
    assert 0 < len(got) == len(script.bodies) == chat.spent.requests < 30
    with pytest.raises(BudgetError):
        chat.complete(HELLO, max_tokens=500)
    more = client(url, budget=10_000, **settings)
    assert len(dict(more.complete_all(conversations(30), max_tokens=10))) == 30
    assert more.spent.requests == 30 - len(got)
    assert len(script.bodies) == 30


def test_a_server_that_reports_no_tokens_cannot_outrun_the_budget(serve):
    url, script = serve(reply('{"choices": [{"message": {"content": "a"}}]}'))
    chat = client(url, budget=100, prices=(1e6, 1e6))
    with pytest.raises(BudgetError):
        for _ in range(10):
            chat.complete(HELLO, max_tokens=10)
    assert 0 < len(script.bodies) <= 5


def test_the_number_of_requests_can_be_limited(serve):
    url, script = serve(reply("busy", 503))
    with pytest.raises(BudgetError, match="max_requests is 2"):
        client(url, max_requests=2, retries=9).complete(HELLO)
    assert len(script.bodies) == 2


def test_bad_input():
    for settings, words in [
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"timeout": 0}, "timeout above 0"),
        ({"budget": 1.0}, "budget needs prices"),
    ]:
        with pytest.raises(ValueError, match=words):
            OpenAIChat("http://x/v1", "m", **settings)
    with pytest.raises(ValueError, match="url must start with http"):
        OpenAIChat("localhost:8000", "m")
    chat = OpenAIChat("http://x/v1", "m")
    for messages in ([], "hello", {"role": "user", "content": "x"}, [{"role": "user"}], ["hello"]):
        with pytest.raises(ValueError, match="messages"):
            chat.complete(messages)
    with pytest.raises(ValueError, match="max_tokens"):
        chat.complete(HELLO, max_tokens=0)
