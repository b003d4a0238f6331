"""`python -m tests.fuzz`: the long run; and one input again, from its number."""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path

from tests.fuzz.campaign import Report, make_input, run, shown_outcomes

_PIECE = 2000
_LINE_EVERY = 100_000  # where the line cannot be overwritten
# An input that keeps a worker busy inside of a library, where the worker's own alarm is not heard.
_SILENCE_MAX = 120.0


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.only is not None:
        return _again(arguments.only)
    began, total = time.monotonic(), Report()
    try:
        _run_for(arguments, total, began)
    except KeyboardInterrupt:
        print("\ninterrupted")
    seconds = time.monotonic() - began
    print(f"\n{total.count} inputs in {seconds:.0f} s ({total.count / seconds:.0f}/s), from number {arguments.seed} on")
    print(shown_outcomes(total))
    for number, text in sorted(total.findings.items()):
        print(f"FOUND {number}: {text}")
    if total.findings:
        print(f"{len(total.findings)} findings; their files are in {arguments.findings}, --only NUMBER shows one again")
    return 1 if total.findings else 0


def _parser():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to run (60)")
    parser.add_argument("--inputs", type=int, help="stop after this many inputs, if that comes first")
    parser.add_argument("--processes", type=int, default=1, help="how many processes run at once (1)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first input (0); those after it count up")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="folder for files of findings")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="check this input alone, and show what happens")
    return parser


def _again(number: int) -> int:
    made = make_input(number)
    path = Path(f"{number}.{made.suffix}")
    path.write_bytes(made.content)
    print(f"input {number} ({made.kind}) is written to {path}")
    report = run([number], Report(), traces=True)
    print(shown_outcomes(report))
    return 1 if report.findings else 0


def _run_for(arguments, total, began) -> None:
    """Hand pieces of the numbers to worker processes; a worker that dies or falls silent is a finding, and replaced."""
    until = began + 60 * arguments.minutes
    pieces = _pieces(arguments.seed, arguments.inputs)
    workers = [_Worker() for _ in range(arguments.processes)]
    for worker in workers:
        worker.give(next(pieces, None))
    try:
        while any(worker.piece for worker in workers):
            wait([worker.pipe for worker in workers if worker.piece], timeout=1.0)
            for place, worker in enumerate(workers):
                if worker.piece is None or not worker.take(total, arguments.findings):
                    continue
                _show(total, began)
                workers[place] = worker.replaced()
                workers[place].give(next(pieces, None) if time.monotonic() < until else None)
    finally:
        for worker in workers:
            worker.end()


def _pieces(first, inputs):
    """Numbers from `first` on, some at a time; without end where `inputs` is None."""
    for start in count(first, _PIECE):
        size = _PIECE if inputs is None else min(_PIECE, first + inputs - start)
        if size <= 0:
            return
        yield range(start, start + size)


class _Worker:
    """A process that checks pieces of the numbers, and says on a pipe how each piece ended."""

    def __init__(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.current = multiprocessing.Value("q", -1, lock=False)
        self.process = multiprocessing.Process(target=_work, args=(theirs, self.current), daemon=True)
        self.process.start()
        theirs.close()
        self.piece = None
        self.heard = (-1, time.monotonic())

    def give(self, piece) -> None:
        self.piece = piece
        if piece is not None:
            self.heard = (-1, time.monotonic())
            self.pipe.send(piece)

    def take(self, total, folder) -> bool:
        """Add what the worker found; return whether it is done with its piece, one way or another."""
        if self.pipe.poll():
            try:
                found = self.pipe.recv()
            except EOFError:
                return self._lost(total, folder, "the process died")
            total.add(found, folder)
            return True
        if self.current.value != self.heard[0]:
            self.heard = (self.current.value, time.monotonic())
        elif time.monotonic() - self.heard[1] > _SILENCE_MAX:
            return self._lost(total, folder, f"no answer for {_SILENCE_MAX:.0f} s")
        return False

    def _lost(self, total, folder, why) -> bool:
        number = self.current.value
        self.end()
        if number < 0:
            raise RuntimeError("a worker died before its first input: the checks fail on undamaged files")
        # Those of its piece that came before are not counted: the report went with the process.
        total.add(Report(findings={number: why}), folder)
        return True

    def replaced(self):
        return self if self.process.is_alive() else _Worker()

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def _work(pipe, current) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal interrupts all; the parent says when to stop

    def marked(piece):
        for number in piece:
            current.value = number
            yield number

    # The parent may be killed: its end of the pipe would stay open in its other workers.
    while pipe in wait([pipe, multiprocessing.parent_process().sentinel]):
        pipe.send(run(marked(pipe.recv()), Report()))


def _show(total, began) -> None:
    if not sys.stdout.isatty() and total.count % _LINE_EVERY >= _PIECE:
        return
    seconds = time.monotonic() - began
    rate, findings = total.count / seconds, len(total.findings)
    line = f"{total.count} inputs, {rate:.0f}/s, {findings} findings, {seconds / 60:.1f} min"
    print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
