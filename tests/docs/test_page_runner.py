"""The gate for the documentation: blocks are found, run, and fail loudly."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import read_blocks, without_blocks
from tests.docs.page_runner import PageRunner, console_session


def markdown(text: str) -> str:
    return textwrap.dedent(text).replace("'''", "```")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[PageRunner]:
    runner = PageRunner(tmp_path / "page.md", tmp_path)
    yield runner
    runner.close()


def run(runner: PageRunner, text: str) -> None:
    for block in read_blocks(markdown(text)):
        runner.run(block)


def test_a_block_knows_its_line_language_options_and_text() -> None:
    (block,) = read_blocks(markdown("Text.\n\n'''console {.exact}\n$ echo 1\n1\n'''\n"))
    assert (block.line, block.language, block.options, block.text) == (4, "console", ("exact",), "$ echo 1\n1\n")


def test_a_block_inside_a_list_loses_its_indentation() -> None:
    (block,) = read_blocks("1. Step\n\n    ```python\n    a = 1\n    ```\n")
    assert block.text == "a = 1\n"


def test_the_comment_above_a_block_gives_the_reason_it_is_left_out() -> None:
    left_out, executed = read_blocks(
        markdown("<!-- not executed: needs a cloud -->\n'''python\n1/0\n'''\n\n'''python\n1\n'''\n")
    )
    assert (left_out.skip_reason, executed.skip_reason) == ("needs a cloud", None)


def test_leaving_a_block_out_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="without a reason"):
        read_blocks(markdown("<!-- not executed: -->\n'''python\n1/0\n'''\n"))


def test_a_block_that_never_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="never ends"):
        read_blocks(markdown("'''python\n1\n"))


def test_prose_holds_neither_blocks_nor_inline_code() -> None:
    assert without_blocks(markdown("a `b` c\n'''text\nd\n'''\ne\n")) == "a  c\n\ne\n"


def test_python_blocks_share_a_namespace_and_may_await(runner: PageRunner) -> None:
    run(runner, "'''python\nimport asyncio\nx = 1\n'''\n'''python\nawait asyncio.sleep(0)\nassert x == 1\n'''\n")


def test_what_a_python_block_raises_fails_the_page(runner: PageRunner) -> None:
    with pytest.raises(AssertionError):
        run(runner, "'''python\nassert 1 == 2\n'''\n")


def test_a_command_that_fails_fails_the_page(runner: PageRunner) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:2: `exit 3` exits 3"):
        run(runner, "'''console\n$ exit 3\n'''\n")


def test_commands_run_in_the_folder_of_the_page(runner: PageRunner, tmp_path: Path) -> None:
    run(runner, "'''console\n$ echo made > file\n'''\n'''bash\ntest -f file\n'''\n")
    assert (tmp_path / "file").read_text() == "made\n"


def test_output_is_compared_only_where_the_block_says_exact(runner: PageRunner) -> None:
    run(runner, "'''console\n$ echo one\nsomething else\n'''\n")
    with pytest.raises(AssertionError, match="prints something else"):
        run(runner, "'''console {.exact}\n$ echo one\nsomething else\n'''\n")


def test_a_backslash_continues_a_command() -> None:
    (block,) = read_blocks(markdown("'''console\n$ echo a \\\n    b\na b\n$ true\n'''\n"))
    assert console_session(block) == [(2, "echo a \\\n    b", "a b\n"), (5, "true", "")]


def test_what_a_command_leaves_running_ends_with_the_page(tmp_path: Path) -> None:
    runner = PageRunner(tmp_path / "page.md", tmp_path)
    run(runner, "'''bash\nsleep 300 > /dev/null 2>&1 &\necho $! > pid\n'''\n")
    pid = int((tmp_path / "pid").read_text())
    run(runner, "'''bash\nkill -0 $(cat pid)\n'''\n")
    runner.close()
    until = time.monotonic() + 60
    while has_process(pid):
        assert time.monotonic() < until
        time.sleep(0.01)


def has_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not is_zombie(pid)


def is_zombie(pid: int) -> bool:
    """Whether it has ended, and nobody has asked how: in a container there may be no init that does."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"
