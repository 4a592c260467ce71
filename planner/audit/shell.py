"""Reading commands from shell text: words and assignments only; nothing is run, no file or variable of the machine is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from planner.errors import InputError

MOST_CHARACTERS, MOST_WORDS = 262_144, 20_000
"""Of one text."""
UNKNOWN = "\x00"
"""Stands around what only a shell can fill in, within a word."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_ENDS = frozenset("\n;&|()")
_KEYWORDS = frozenset(("if", "then", "else", "elif", "fi", "do", "done", "while", "for", "{", "}", "!", "[", "[["))
_DECLARES = frozenset(("export", "declare", "local", "readonly"))


@dataclass(frozen=True)
class Command:
    """One simple command: its words, the variables set for it, and the line on which it starts."""

    words: tuple[str, ...]
    env: dict[str, str]
    line: int


@dataclass
class _Reader:
    """A cursor over the text. ``known``: variables that the text itself sets; ``exported``: those that programs see;
    ``filled``: characters that variables have put into words."""

    text: str
    where: str
    at: int = 0
    line: int = 1
    known: dict[str, str] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)
    filled: int = 0

    def take(self) -> str:
        char = self.text[self.at]
        self.at += 1
        self.line += char == "\n"
        return char

    def more(self) -> bool:
        while self.text.startswith("\\\n", self.at):  # a line that goes on
            self.at, self.line = self.at + 2, self.line + 1
        return self.at < len(self.text)

    def peek(self) -> str:
        return self.text[self.at] if self.more() else ""

    def value(self, name: str) -> str | None:
        """What a variable of the text holds; ``InputError`` where variables of variables grow past all bounds."""
        held = self.known.get(name)
        self.filled += len(held or "")
        if self.filled > MOST_CHARACTERS:
            raise self.fault(f"variables fill in more than {MOST_CHARACTERS} characters")
        return held

    def fault(self, what: str) -> InputError:
        return InputError(what, where=f"{self.where} line {self.line}", mend="give the command as a shell reads it")


def commands(text: str, where: str) -> list[Command]:
    """The simple commands of a script in order; ``InputError`` for open quotes or too much of anything."""
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"is longer than {MOST_CHARACTERS} characters", where=where, mend="give the launch lines alone")
    reader = _Reader(text.replace("\r\n", "\n"), where)
    found: list[Command] = []
    words: list[str] = []
    start, count = 1, 0
    while True:
        word = _word(reader)
        if word is None:
            if words:
                found += _command(words, reader, start)
            if not reader.more():
                return found
            words = []
            reader.take()
            continue
        count += 1
        if count > MOST_WORDS:
            raise InputError(f"has more than {MOST_WORDS} words", where=where, mend="give the launch lines alone")
        start = start if words else reader.line
        words.append(word)


def _word(reader: _Reader) -> str | None:
    """The next word, or ``None`` where the command ends (the cursor stays on its end)."""
    while reader.more():
        char = reader.peek()
        if char in " \t":
            reader.take()
        elif char == "#":
            while reader.more() and reader.peek() != "\n":
                reader.take()
        elif char in "<>":
            _redirection(reader)
        elif char in _ENDS:
            return None
        else:
            word = _parts(reader)
            if not (word.isdigit() and reader.peek() in ("<", ">")):
                return word
    return None


def _parts(reader: _Reader) -> str:
    """A word from its first character on."""
    parts: list[str] = []
    while reader.more():
        char = reader.peek()
        if char in " \t<>" or char in _ENDS:
            break
        reader.take()
        if char == "'":
            parts.append(_until(reader, "'"))
        elif char == '"':
            parts.append(_quoted(reader))
        elif char == "\\":
            parts.append(reader.take() if reader.more() else "")
        elif char in "$`":
            parts.append(_expansion(reader, char))
        else:
            parts.append(char)
    return "".join(parts)


def _redirection(reader: _Reader) -> None:
    """``> FILE``, ``2>&1`` and the like: passed over with their target."""
    while reader.peek() and reader.peek() in "<>&-":
        reader.take()
    while reader.peek() and reader.peek() in " \t":
        reader.take()
    while reader.peek() and reader.peek() not in " \t" and reader.peek() not in _ENDS:
        reader.take()


def _until(reader: _Reader, end: str) -> str:
    stop = reader.text.find(end, reader.at)
    if stop < 0:
        raise reader.fault(f"a {end} is not closed")
    inner = reader.text[reader.at : stop]
    reader.at, reader.line = stop + len(end), reader.line + inner.count("\n")
    return inner


def _quoted(reader: _Reader) -> str:
    parts: list[str] = []
    while reader.more():
        char = reader.take()
        if char == '"':
            return "".join(parts)
        if char == "\\" and reader.peek() and reader.peek() in '"\\$`':
            parts.append(reader.take())
        elif char in "$`":
            parts.append(_expansion(reader, char))
        else:
            parts.append(char)
    raise reader.fault('a " is not closed')


def _expansion(reader: _Reader, sign: str) -> str:
    """What a variable of the text holds, a default that stands in it, or a mark that nobody but a shell knows it."""
    if sign == "`":
        return f"{UNKNOWN}{_until(reader, '`')[:32]}{UNKNOWN}"
    following = reader.peek()
    if following == "(":
        depth, start = 0, reader.at
        while reader.more():
            depth += {"(": 1, ")": -1}.get(reader.take(), 0)
            if not depth:
                return f"{UNKNOWN}{reader.text[start : reader.at][:32]}{UNKNOWN}"
        raise reader.fault("a $( is not closed")
    if following == "{":
        reader.take()
        name, dash, default = _until(reader, "}").partition(":-")
        return reader.value(name) or (default if dash and "$" not in default else f"{UNKNOWN}{name[:32]}{UNKNOWN}")
    match = _NAME.match(reader.text, reader.at)
    if match is None:
        return f"{UNKNOWN}{reader.take()}{UNKNOWN}" if following and following in "@*#?0123456789" else "$"
    reader.at = match.end()
    held = reader.value(match[0])
    return f"{UNKNOWN}{match[0][:32]}{UNKNOWN}" if held is None else held


def _command(words: list[str], reader: _Reader, line: int) -> list[Command]:
    """The command without what stands before it; assignments alone are kept for what follows."""
    env: dict[str, str] = {}
    left = list(words)
    while left and (left[0] in _KEYWORDS or left[0] == "exec"):
        left.pop(0)
    declares = bool(left) and left[0] in _DECLARES
    left = left[1:] if declares else left
    while left and (match := _ASSIGNMENT.fullmatch(left[0])):
        env[match[1]] = match[2]
        left.pop(0)
    if not left or declares:
        reader.known.update({name: value for name, value in env.items() if UNKNOWN not in value})
        if words[0] == "export":
            reader.exported.update(env)
        return []
    if left[0].rpartition("/")[2] == "env":
        left.pop(0)
        while left and (match := _ASSIGNMENT.fullmatch(left[0])):
            env[match[1]] = match[2]
            left.pop(0)
    return [Command(tuple(left), {**reader.exported, **env}, line)] if left else []
