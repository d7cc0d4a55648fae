"""``fluxperf comment``: one comment on a pull request that is rewritten by every run instead of piling up.

It speaks GitHub's REST API (*Issue comments*) with the variables that GitHub Actions sets. The comment is found by an
invisible first line that names it, among the comments of bots only: nobody can plant one for a run to edit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_fluxperf.cli.arguments import Commands
from pytest_fluxperf.errors import FluxPerfError

LIMIT = 65_536
"""Characters that GitHub takes in a comment."""

_TIMEOUT_S = 30
_PAGES = 50
_LARGEST_ANSWER = 64 * 2**20
"""Bytes; a page of 100 comments has 7 MiB at most. What is cut off there is no JSON."""


def add_parser(commands: Commands) -> None:
    """What the command takes."""
    parser = commands.add_parser("comment", help="write or rewrite one comment on a GitHub pull request")
    parser.add_argument("body", type=Path, metavar="FILE.md", help="what it says; see fluxperf report --format md")
    parser.add_argument("--name", required=True, metavar="NAME", help="which comment: one a name and request")
    parser.add_argument("--pull-request", type=int, required=True, metavar="N")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the comment and print its address."""
    print(post(options.body, options.name, options.pull_request, Repository.of_environment()))
    return 0


@dataclass(frozen=True)
class Repository:
    """Where to comment, and with which rights."""

    api: str
    name: str
    token: str

    @classmethod
    def of_environment(cls) -> Repository:
        """From ``GITHUB_API_URL``, ``GITHUB_REPOSITORY`` and ``GITHUB_TOKEN``.

        Raises:
            FluxPerfError: a variable is missing or is no repository.
        """
        name, token = os.environ.get("GITHUB_REPOSITORY", ""), os.environ.get("GITHUB_TOKEN", "")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise FluxPerfError(f"GITHUB_REPOSITORY must be OWNER/NAME, not {name!r}")
        if not token:
            raise FluxPerfError("GITHUB_TOKEN is not set: give the step a token with pull-requests: write")
        return cls(os.environ.get("GITHUB_API_URL") or "https://api.github.com", name, token)

    def call(self, method: str, path: str, content: object = None) -> tuple[Any, str | None]:
        """The decoded answer, and the path of the next page.

        Raises:
            FluxPerfError: GitHub refused or could not be reached.
        """
        request = urllib.request.Request(
            f"{self.api}{path}",
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                return json.loads(answer.read(_LARGEST_ANSWER)), self._next(answer.headers.get("Link", ""))
        except urllib.error.HTTPError as error:
            hint = "; the token needs pull-requests: write" if error.code in (401, 403, 404) else ""
            raise FluxPerfError(f"GitHub refused to {method} {path}: {error.code} {error.reason}{hint}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise FluxPerfError(f"no usable answer from {self.api}: {error}") from None

    def _next(self, links: str) -> str | None:
        found = re.search(r'<([^>]+)>;\s*rel="next"', links)
        if not found or not found[1].startswith(f"{self.api}/"):
            return None
        return found[1].removeprefix(self.api)


def post(body: Path, name: str, number: int, repository: Repository) -> str:
    """Write or rewrite the comment ``name`` of pull request ``number``; returns the comment's address.

    Raises:
        FluxPerfError: the text cannot be read, is too long, or GitHub refused.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise FluxPerfError(f"--name must be lower-case letters, digits and hyphens, not {name!r}")
    mark = f"<!-- fluxperf: {name} -->"
    try:
        text = f"{mark}\n{body.read_text(encoding='utf-8')}"
    except (OSError, UnicodeDecodeError) as error:
        raise FluxPerfError(f"cannot read {body}: {getattr(error, 'strerror', None) or error}") from None
    if len(text) > LIMIT:
        raise FluxPerfError(f"{body} has {len(text)} characters, GitHub takes {LIMIT}; render it with --max-bytes")
    try:
        return _post(text, mark, number, repository)
    except (KeyError, TypeError, AttributeError) as error:
        raise FluxPerfError(f"no usable answer from {repository.api}: {error!r}") from None


def _post(text: str, mark: str, number: int, repository: Repository) -> str:
    for comment in _comments(repository, number):
        author = comment["user"] or {}  # none where the account is gone
        if author.get("type") == "Bot" and (comment["body"] or "").startswith(mark):
            path = f"/repos/{repository.name}/issues/comments/{comment['id']}"
            answer, _ = repository.call("PATCH", path, {"body": text})
            break
    else:
        answer, _ = repository.call("POST", f"/repos/{repository.name}/issues/{number}/comments", {"body": text})
    return str(answer["html_url"])


def _comments(repository: Repository, number: int) -> Iterator[dict[str, Any]]:
    path: str | None = f"/repos/{repository.name}/issues/{number}/comments?per_page=100"
    for _ in range(_PAGES):
        if path is None:
            return
        page, path = repository.call("GET", path)
        yield from page
