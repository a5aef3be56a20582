"""A receiver under strace: what it asks of the kernel, in order, and its death at any of these calls."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from twm_pipeline.settings import environment_of
from twm_pipeline_tests.webhooks.running import Receiver, free_port, receiver_settings

SECONDS = 60
PR_SET_PTRACER, ANYBODY = 0x59616D61, -1
# Where only descendants may be traced, a process has to allow another one; strace comes when it has started.
LAUNCH = (
    f"import ctypes, runpy; ctypes.CDLL(None).prctl({PR_SET_PTRACER}, {ANYBODY});"
    " runpy.run_module('twm_pipeline.webhooks', run_name='__main__')"
)
CALLS = "openat,read,write,writev,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2,unlink,mkdir,close"
SHOWN_BYTES = 600
SENDING = ("write", "writev", "sendto", "sendmsg")


@contextlib.contextmanager
def traced_receiver(
    folder: Path, trace: Path, *options: str, only_loop: bool = False
) -> Iterator[tuple[Receiver, subprocess.Popen[bytes]]]:
    """Give a receiver that listens, with strace attached to it from now on, which writes *trace*.

    Args:
        folder: For its settings and its spool.
        trace: The file to be written.
        options: Of strace: which calls, and what is to happen at them.
        only_loop: Leave the thread that writes entries alone; the event loop's sends the answers.
    """
    settings = receiver_settings(folder).model_copy(update={"app_port": free_port()})
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", LAUNCH],
                env=environment_of(settings),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Receiver ")
        command = ["strace", "-y", "-s", str(SHOWN_BYTES), "-o", str(trace), "-p", str(process.pid)]
        command += [] if only_loop else ["-f"]
        tracer = stack.enter_context(subprocess.Popen([*command, *options], stderr=subprocess.PIPE))
        stack.callback(tracer.kill)
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        assert b" attached" in said, said
        yield Receiver(settings, settings.app_port), process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
        tracer.wait(SECONDS)


@dataclass(frozen=True)
class Call:
    """A system call as it began, or as it ended when *result* is known."""

    thread: str
    name: str
    words: str
    result: str | None = None

    @property
    def target(self) -> str:
        """The path or socket of the descriptor that the call begins with."""
        found = _DESCRIPTOR.match(self.words)
        return found[1] if found else ""


_DESCRIPTOR = re.compile(r"\d+<(.*?)>(?:, |$)")
_WHOLE = re.compile(r"(\d*) *(\w+)\((.*)\) += (.*)")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (.*)")


def calls_of(trace: Path) -> Iterator[Call]:
    """Yield the beginning and the end of every call, in the order in which the kernel came to them."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        if found := _WHOLE.fullmatch(line):
            thread, name, words, result = found.groups()
            yield Call(thread, name, words)
            yield Call(thread, name, words, result)
        elif found := _BEGUN.fullmatch(line):
            thread, name, words = found.groups()
            begun[thread] = words
            yield Call(thread, name, words)
        elif found := _RESUMED.fullmatch(line):
            thread, name, words, result = found.groups()
            yield Call(thread, name, begun.pop(thread) + words, result)


_PATHS = re.compile(r'"([^"]*)"')
_TASK = re.compile(r'\\"(?:id|object_id)\\": \\?"?(\d+)')
_RENAMING = ("rename", "renameat", "renameat2")
_SYNCING = ("fsync", "fdatasync")


@dataclass
class Ledger:
    """What a power cut would leave at each moment, by the calls alone; and which answers came too early.

    Attributes:
        durable: Tasks whose entry a power cut can no longer take.
        answered: Tasks whose delivery was answered 200, in order.
        early: Those among them that were not durable when the answer began to be sent.
        rounds: Deliveries that each sync of a folder made durable.
    """

    durable: set[str] = field(default_factory=set)
    answered: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    _asked: dict[str, str] = field(default_factory=dict)
    _written: dict[str, str] = field(default_factory=dict)
    _synced: dict[str, str] = field(default_factory=dict)
    _renaming: dict[str, str] = field(default_factory=dict)
    _renamed: dict[str, dict[str, str]] = field(default_factory=dict)
    _syncing: dict[str, set[str]] = field(default_factory=dict)
    _volatile_folders: set[str] = field(default_factory=set)

    def follow(self, trace: Path) -> Ledger:
        """Go through a trace and return what it tells."""
        for call in calls_of(trace):
            if call.name == "read" and call.result is not None:
                self._read(call)
            elif call.name in SENDING:
                self._write(call)
            elif call.name in _SYNCING:
                self._sync(call)
            elif call.name in _RENAMING:
                self._rename(call)
            elif call.name == "mkdir" and call.result == "0":
                self._volatile_folders.add(_PATHS.findall(call.words)[0])
        return self

    def _read(self, call: Call) -> None:
        target = call.target
        if target.startswith("socket:") and (task := _TASK.search(call.words)):
            self._asked[target] = task[1]

    def _write(self, call: Call) -> None:
        target = call.target
        if target.startswith("socket:"):
            if call.result is None and "HTTP/1.1 200" in call.words:
                self._answer(self._asked.pop(target))
        elif call.result is not None and (task := _TASK.search(call.words)):
            whole = int(call.words.rpartition(", ")[2]) == int(call.result)
            assert whole, f"a short write: {call.words[-80:]}"
            self._written[target] = task[1]
            self._synced.pop(target, None)

    def _answer(self, task: str) -> None:
        self.answered.append(task)
        if task not in self.durable:
            self.early.append(task)

    def _sync(self, call: Call) -> None:
        target = call.target
        if call.result is None:
            folders = {path for path in self._volatile_folders if path.rpartition("/")[0] == target}
            self._syncing[call.thread] = folders | set(self._renamed.get(target, {}))
            return
        assert call.result == "0", call
        if target in self._written:
            self._synced[target] = self._written[target]
        seen = self._syncing.pop(call.thread)
        self._volatile_folders -= seen
        made = {task for path, task in self._renamed.get(target, {}).items() if path in seen}
        if made and not any(target.startswith(folder) for folder in self._volatile_folders):
            self.rounds.append(len(made - self.durable))
            self.durable |= made

    def _rename(self, call: Call) -> None:
        """Count an entry only if its content was on the disk before it got its name."""
        source, target = _PATHS.findall(call.words)
        if call.result is None:
            self._renaming[call.thread] = self._synced.pop(source, "")
        elif call.result == "0" and (task := self._renaming.pop(call.thread)):
            self._renamed.setdefault(target.rpartition("/")[0], {})[target] = task
