"""Source trees and git repositories: what git ignores stays out, licences are found, a bare repository is read."""

import subprocess
from pathlib import Path

import pytest

from groundup.data.config import ReadConfig
from groundup.data.extract import extract
from groundup.data.formats import Problem, Record
from groundup.data.licence import licence_in_manifest, licence_of_file, licence_of_header
from groundup.data.read import find_files, read_file

MIT = """MIT License

Copyright (c) 2024 A. Person

Permission is hereby granted, free of charge, to any person obtaining a copy of this software, to deal in the Software without restriction,
subject to the following conditions: The above copyright notice and this permission notice shall be included in all copies.
"""
BSD = """Redistribution and use in source and binary forms, with or without
 * modification, are permitted provided that the following conditions are met:
 * 1. Redistributions of source code must retain the above copyright notice.
 * 2. Redistributions in binary form must reproduce the above copyright notice.
"""
TREE = {
    "LICENSE": MIT, "README.md": "# Tool\n\nIt mends nets.\n", "src/a.py": "x = 1\n",
    "src/b.py": "# SPDX-License-Identifier: Apache-2.0\ny = 2\n",
    "vendor/other.py": "z = 3\n", "lib/third/COPYING": BSD, "lib/third/c.c": "int c;\n", "web/app.min.js": "var a=1;",
    "web/app.js": "let a = 1\n",
    ".gitignore": "*.log.txt\n/out/\n", "run.log.txt": "noise\n", "out/made.py": "q = 1\n", "logo.png": "PNG", "api_pb2.py": "made = 1\n",
    "src/licence.py": "GPL = 'GNU GENERAL PUBLIC LICENSE Version 3, 29 June 2007'\n",
}  # fmt: skip


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@a.example", "-C", str(folder), *words],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "tool"
    for name, text in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "remote", "add", "origin", "https://github.com/someone/tool.git")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first", "--date", "2024-03-02T10:00:00")
    (folder / "src" / "new.py").write_text("fresh = 1\n")  # not committed yet, not ignored either
    return folder


def everything(root: Path) -> tuple[dict[str, Record], dict[str, str]]:
    """The records by label (without the number), with what the file says of itself; and the rules by which the rest was set aside."""
    files, aside = find_files([root], ReadConfig())
    records = {}
    for file in files:
        for item in read_file(file, ReadConfig()):
            if isinstance(item, Problem):
                aside.append(item)
            else:
                records[item.meta["path"]] = item
    return records, {p.file: p.rule for p in aside}


def licence(record: Record) -> str:
    return (record.meta | extract(record).meta).get("licence", "")


def test_a_work_tree(tree: Path) -> None:
    records, aside = everything(tree.parent)
    assert set(records) == {
        f"tool/{name}"
        for name in ("README.md", "src/a.py", "src/b.py", "src/licence.py", "src/new.py", "lib/third/c.c", "web/app.js")
    }
    assert {name: licence(record) for name, record in records.items()} == {
        "tool/README.md": "MIT", "tool/src/a.py": "MIT", "tool/src/licence.py": "MIT", "tool/src/new.py": "MIT", "tool/web/app.js": "MIT",
        "tool/src/b.py": "Apache-2.0", "tool/lib/third/c.c": "BSD-2-Clause",
    }  # fmt: skip
    assert aside["tool/run.log.txt"] == aside["tool/out"] == "ignored"
    assert aside["tool/vendor"] == aside["tool/.git"] == "vendored"
    assert aside["tool/web/app.min.js"] == aside["tool/api_pb2.py"] == "generated"
    assert aside["tool/logo.png"] == "unknown_type"


def test_a_bare_repository(tree: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare" / "tool.git"
    git(tmp_path, "clone", "-q", "--bare", str(tree), str(bare))
    git(bare, "remote", "set-url", "origin", "https://github.com/someone/tool.git")
    records, aside = everything(bare.parent)
    assert set(records) == {
        f"tool.git/{name}"
        for name in ("README.md", "src/a.py", "src/b.py", "src/licence.py", "lib/third/c.c", "web/app.js")
    }
    record = records["tool.git/lib/third/c.c"]
    assert (licence(record), licence(records["tool.git/src/a.py"])) == ("BSD-2-Clause", "MIT")
    assert record.payload == b"int c;\n"
    assert record.meta["url"] == f"https://github.com/someone/tool/blob/{record.meta['commit']}/lib/third/c.c"
    assert len(record.meta["date"]) == 10
    assert aside["tool.git/vendor/other.py"] == "vendored"
    assert {r.id for r in everything(bare)[0].values()} == {r.id for r in records.values()}  # named itself, too


def test_a_repository_that_is_not_whole_is_named(tree: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.git"
    git(tmp_path, "init", "-q", "--bare", str(empty))
    assert everything(empty) == ({}, {"empty.git": "unreadable"})
    bare = tmp_path / "tool.git"
    git(tmp_path, "clone", "-q", "--bare", "--no-hardlinks", str(tree), str(bare))
    blob = subprocess.run(
        ["git", "-C", str(bare), "rev-parse", "HEAD:src/a.py"], check=True, capture_output=True, text=True
    ).stdout.strip()
    (bare / "objects" / blob[:2] / blob[2:]).unlink()
    records, aside = everything(bare)
    assert aside["tool.git"] == "damaged"
    assert "tool.git/README.md" in records


def test_nothing_that_a_strangers_config_names_is_run(tree: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path / 'sprung'}\n")
    trap.chmod(0o755)
    git(tree, "config", "core.fsmonitor", str(trap))
    everything(tree.parent)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("text", "name"), [
    (MIT, "MIT"),
    (BSD, "BSD-2-Clause"),
    (BSD + "Neither the name of the author nor ...", "BSD-3-Clause"),
    ("GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007\n", "GPL-3.0"),
    ("GNU LESSER GENERAL PUBLIC LICENSE\nVersion 2.1, February 1999\n... the GNU General Public License, version 2, June 1991", "LGPL-2.1"),
    ("This is free and unencumbered software released into the public domain.", "Unlicense"),
    ("All rights reserved. You may look at this.", ""),
    ("", ""),
])  # fmt: skip
def test_licence_files(text: str, name: str) -> None:
    assert licence_of_file(text) == name


def test_the_licence_of_this_very_project() -> None:
    root = Path(__file__).parents[2]
    assert licence_of_file((root / "LICENSE").read_text()) == "Apache-2.0"
    assert licence_in_manifest("pyproject.toml", (root / "pyproject.toml").read_text()) == "Apache-2.0"


@pytest.mark.parametrize(("text", "name"), [
    ("// SPDX-License-Identifier: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
    ("/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */", "GPL-2.0-only WITH Linux-syscall-note"),
    ("# Licensed under the Apache License,\n# Version 2.0 (the \"License\"); you may not use", "Apache-2.0"),
    ("/* This is free software; you can redistribute it and/or modify it under the terms of the GNU General\n"
     " * Public License as published by the Free Software Foundation; either version 3 of the License, or (at\n"
     " * your option) any later version. */", "GPL-3.0-or-later"),
    ("# Use of this source code is governed by a BSD-style license that can be found in the LICENSE file.", ""),
    ("x = 'a license plate'\n", ""),
    ("# Copyright (c) 2020\n#\n# Released under the MIT license\n", "MIT"),
])  # fmt: skip
def test_headers(text: str, name: str) -> None:
    assert licence_of_header(text) == name


def test_manifests() -> None:
    assert licence_in_manifest("package.json", '{"license": "ISC"}') == "ISC"
    assert licence_in_manifest("Cargo.toml", '[package]\nlicense = "MIT OR Apache-2.0"') == "MIT OR Apache-2.0"
    for text in ("{", '{"license": "SEE LICENSE IN x"}', "[]", '{"license": {"type": "MIT"}}'):
        assert licence_in_manifest("package.json", text) == ""
