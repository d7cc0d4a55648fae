"""A report of pytest's that gets another ending. The only place that changes one.

Pytest makes a test's report when its body has ended, but a suspect's verdict is known only after the last test, when
it was compared with the old environment. The reports are held back until then, and pytest has no interface to end a
test twice: so the call's report is made once more, of a body that passes or fails by the verdict, and what differs is
taken over. Running it through pytest's own hooks leaves xfail, ``--runxfail`` and the text of a failure to pytest.
"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_fluxperf.plugin.stash import failure


def end_again(item: pytest.Item, report: pytest.TestReport, failed: str | None) -> None:
    """Let the call's ``report`` say that the test failed with a message, or (None) that it passed."""
    vars(report).pop("wasxfail", None)
    vars(report).update(_ending(item, failed))


def _ending(item: pytest.Item, failed: str | None) -> dict[str, Any]:
    """What pytest reports of a test whose body passes, or fails with a message.

    Other plugins have seen the test end once, and are not asked.
    """

    def end() -> None:
        if failed is not None:
            raise failure(failed)

    manager = item.config.pluginmanager
    others = [plugin for name, plugin in manager.list_name_plugin() if name not in ("runner", "skipping")]
    make = manager.subset_hook_caller("pytest_runtest_makereport", others)
    report = make(item=item, call=pytest.CallInfo.from_call(end, when="call"))
    return {name: getattr(report, name) for name in ("outcome", "longrepr", "wasxfail") if hasattr(report, name)}
