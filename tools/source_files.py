# SPDX-License-Identifier: Apache-2.0
"""What the checks share: the list of our files, C code without comments and strings, and how findings are reported."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def files(*patterns):
    """Paths from the root, of tracked files and of new ones that git does not ignore."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
                            cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted({path for path in listed.split("\0") if path and os.path.exists(os.path.join(ROOT, path))})


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


# a comment, a string or a character constant, whichever begins first
_NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code_of(text, keep_strings=False):
    """C without comments, and with empty strings; every line stays where it was."""
    def replace(match):
        found = match.group()
        if found[0] != "/":
            return found if keep_strings else found[0] * 2
        return " " + "\n" * found.count("\n")

    return _NOT_CODE.sub(replace, text)


def line_of(text, at):
    return text.count("\n", 0, at) + 1


class Findings:
    """Collects what is wrong and prints it as FILE:LINE: message."""

    def __init__(self):
        self.items = []

    def add(self, path, line, message):
        self.items.append((path, line, message))

    def exit(self):
        for path, line, message in sorted(self.items):
            print(f"{path}:{line}: {message}")
        sys.exit(1 if self.items else 0)
