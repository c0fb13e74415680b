# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows works: every configuration document in it is accepted."""
import json
import os
import re
import subprocess

import pytest

from harness import EDGE, ROOT

PAGES = ["docs/configuration.md", "docs/reference/snapshot.md"]


def documents():
    for page in PAGES:
        with open(os.path.join(ROOT, page)) as f:
            blocks = re.findall(r"^```json\n(.*?)^```$", f.read(), re.M | re.S)
        assert blocks, page
        for i, block in enumerate(blocks):
            if '"schema"' in block:
                yield pytest.param(block, id=f"{page}-{i}")


@pytest.mark.parametrize("document", documents())
def test_documents_that_are_shown_are_accepted(tmp_path, document):
    path = tmp_path / "edge.json"
    path.write_text(document)
    checked = subprocess.run([EDGE, "--check", "--config", str(path)], capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
    assert checked.stdout == f"{path}: {len(json.loads(document).get('rules', []))} rules, no errors\n"
