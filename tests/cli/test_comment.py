"""The sticky comment, against a small GitHub of our own on the loopback address."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pytest_fluxperf.cli import main
from pytest_fluxperf.cli.comment import LIMIT

PAGE = 2
"""Comments a page, so that the wanted one can lie behind the first."""


class GitHub(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments: list[dict] = []
        self.status = 200
        self.authorizations: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def say(self, body: str, kind: str = "User") -> dict:
        comment = {"id": len(self.comments) + 1, "body": body, "user": {"type": kind}, "html_url": "https://x.test/1"}
        self.comments.append(comment)
        return comment


class Handler(BaseHTTPRequestHandler):
    server: GitHub

    def do_GET(self):
        path, _, query = self.path.partition("?")
        assert path == "/repos/octo/repo/issues/7/comments"
        page = int(dict(pair.split("=") for pair in query.split("&")).get("page", 1))
        shown = self.server.comments[(page - 1) * PAGE : page * PAGE]
        more = page * PAGE < len(self.server.comments)
        link = f'<{self.server.url}{path}?page={page + 1}>; rel="next"' if more else ""
        self.answer(shown, link)

    def do_POST(self):
        assert self.path == "/repos/octo/repo/issues/7/comments"
        self.answer(self.server.say(self.sent()["body"], "Bot"))

    def do_PATCH(self):
        number = int(self.path.removeprefix("/repos/octo/repo/issues/comments/"))
        comment = self.server.comments[number - 1]
        comment["body"] = self.sent()["body"]
        self.answer(comment)

    def sent(self) -> dict:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, content: object, link: str = "") -> None:
        self.server.authorizations.add(self.headers["Authorization"])
        self.send_response(self.server.status)
        if link:
            self.send_header("Link", link)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def github(monkeypatch):
    server = GitHub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("GITHUB_API_URL", server.url)
    monkeypatch.setenv("GITHUB_REPOSITORY", "octo/repo")
    monkeypatch.setenv("GITHUB_TOKEN", "t0ken")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def body(tmp_path):
    path = tmp_path / "comment.md"
    path.write_text("## 🔴 1 of 2 regressed\n")
    return path


def comment(body, name="perf-gate"):
    return main(["comment", str(body), "--name", name, "--pull-request", "7"])


def test_one_comment_a_name_is_written_and_then_rewritten(github, body, capsys):
    assert comment(body) == 0
    assert comment(body, "dependency-gate") == 0
    body.write_text("## 🟢 2 passed\n")
    assert comment(body) == 0
    assert [c["body"] for c in github.comments] == [
        "<!-- fluxperf: perf-gate -->\n## 🟢 2 passed\n",
        "<!-- fluxperf: dependency-gate -->\n## 🔴 1 of 2 regressed\n",
    ]
    assert github.authorizations == {"Bearer t0ken"}
    assert capsys.readouterr().out.splitlines() == ["https://x.test/1"] * 3


def test_the_comment_is_found_behind_the_first_page(github, body):
    for text in ("one", "two", "three"):
        github.say(text)
    github.say("<!-- fluxperf: perf-gate -->\nold", "Bot")
    assert comment(body) == 0
    assert len(github.comments) == 4
    assert "1 of 2 regressed" in github.comments[3]["body"]


def test_a_comment_that_a_person_planted_is_left_alone(github, body):
    planted = github.say("<!-- fluxperf: perf-gate -->\nmine")
    assert comment(body) == 0
    assert planted["body"].endswith("mine")
    assert len(github.comments) == 2


def test_a_comment_whose_author_is_gone_is_left_alone(github, body):
    orphan = github.say("<!-- fluxperf: perf-gate -->\nold")
    orphan["user"] = None
    assert comment(body) == 0
    assert orphan["body"].endswith("old")
    assert len(github.comments) == 2


@pytest.mark.parametrize(
    ("status", "complaint"),
    [(403, "403 Forbidden; the token needs pull-requests: write"), (500, "500 Internal Server Error")],
)
def test_a_refusal_is_one_line(github, body, capsys, status, complaint):
    github.status = status
    assert comment(body) == 4
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert "t0ken" not in error


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("GITHUB_TOKEN", "", "GITHUB_TOKEN is not set"),
        ("GITHUB_REPOSITORY", "", "must be OWNER/NAME"),
        ("GITHUB_REPOSITORY", "octo/repo/../../user", "must be OWNER/NAME"),
        ("GITHUB_API_URL", "http://127.0.0.1:1", "no usable answer"),
    ],
)
def test_a_wrong_environment_is_one_line(github, body, capsys, monkeypatch, name, value, complaint):
    monkeypatch.setenv(name, value)
    assert comment(body) == 4
    assert complaint in capsys.readouterr().err


def test_what_cannot_be_posted_is_refused_before_asking(github, body, tmp_path, capsys):
    assert comment(tmp_path / "nothing.md") == 4
    assert "cannot read" in capsys.readouterr().err
    assert comment(body, "Perf Gate -->") == 4
    assert "--name must be" in capsys.readouterr().err
    body.write_text("x" * LIMIT)
    assert comment(body) == 4
    assert "--max-bytes" in capsys.readouterr().err
    assert not github.authorizations
