"""Under which licence a source file is, as an SPDX identifier: by its own header, or by the nearest licence file above it.

What isn't recognised for certain has no licence here: "" means unknown, never free.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = [
    "FILE_CHARS",
    "licence_in_manifest",
    "licence_of_file",
    "licence_of_folder",
    "licence_of_header",
    "licence_of_texts",
    "names_licence",
]

LICENCE_FILE = re.compile(r"(?:(?:un)?licen[cs]es?|copying)(?![a-z])", re.IGNORECASE)
TEXT_SUFFIX = re.compile(r"|\.(?:txt|md|rst|lesser|lib|\d+)", re.IGNORECASE)
COMMENTS = ("#", "//", "--", ";", "%", "'", "*", "<?", "@charset")
CLOSING = {
    "/*": "*/",
    "<!--": "-->",
    '"""': '"""',
    "'''": "'''",
    "{-": "-}",
    "(*": "*)",
    "=begin": "=end",
    "--[[": "]]",
}
OPENING = re.compile("|".join(map(re.escape, CLOSING)))
MANIFESTS = ("pyproject.toml", "Cargo.toml", "package.json", "composer.json")
HEADER_CHARS, FILE_CHARS = 4000, 60_000
EXPRESSION = re.compile(
    r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+-]+(?:[ \t]+(?:AND|OR|WITH)[ \t]+[A-Za-z0-9.+-]+)*)"
)
SPDX = re.compile(r"\(?[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) \(?[A-Za-z0-9.+-]+\)?)*\)?")
# In this order: the first whose words all stand in the text. A longer licence quotes the shorter one.
WHOLE = (
    ("AGPL-3.0", ("gnu affero general public license", "version 3, 19 november 2007", "remote network interaction")),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3, 29 june 2007")),
    ("LGPL-2.1", ("gnu lesser general public license", "version 2.1, february 1999")),
    ("GPL-3.0", ("gnu general public license", "version 3, 29 june 2007")),
    ("GPL-2.0", ("gnu general public license", "version 2, june 1991")),
    ("Apache-2.0", ("apache license", "version 2.0, january 2004", "grant of patent license")),
    ("MPL-2.0", ("mozilla public license version 2.0", "covered software")),
    ("EPL-2.0", ("eclipse public license - v 2.0",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("CC-BY-SA-4.0", ("attribution-sharealike 4.0 international",)),
    ("CC-BY-4.0", ("attribution 4.0 international",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("PSF-2.0", ("python software foundation license version 2",)),
    ("BSL-1.0", ("boost software license - version 1.0",)),
    ("Zlib", ("this software is provided 'as-is', without any express", "altered source versions must be plainly marked")),
    ("PostgreSQL", ("without a written agreement is hereby granted", "the university of california has no obligations")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "neither the name")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "may not be used to endorse or promote")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms", "redistributions in binary form must reproduce")),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software for any purpose", "above copyright notice")),
    ("0BSD", ("permission to use, copy, modify, and/or distribute this software for any purpose",)),
    ("MIT", ("permission is hereby granted, free of charge, to any person", "copyright notice and this permission notice")),
)  # fmt: skip
# What a file's own header says, where it isn't a licence's whole text.
SAID = (
    ("AGPL-3.0-or-later", r"gnu affero general public license .{0,120}version 3.{0,60}or \(?at your option\)? any later"),
    ("LGPL-2.1-or-later", r"gnu lesser general public license .{0,120}version 2\.1.{0,60}or \(?at your option\)? any later"),
    ("LGPL-3.0-or-later", r"gnu lesser general public license .{0,120}version 3.{0,60}or \(?at your option\)? any later"),
    ("GPL-3.0-or-later", r"gnu general public license .{0,120}version 3.{0,60}or \(?at your option\)? any later"),
    ("GPL-2.0-or-later", r"gnu general public license .{0,120}version 2.{0,60}or \(?at your option\)? any later"),
    ("GPL-2.0-only", r"gnu general public license,? version 2\b"),
    ("Apache-2.0", r"licensed under the apache license, version 2\.0"),
    ("MPL-2.0", r"terms of the mozilla public license, v\. ?2\.0"),
    ("MIT", r"(?:under|the terms of|released under|licensed under) the (?:terms of the )?mit licen[cs]e"),
    ("BSD-3-Clause", r"(?:3-clause|new|modified) bsd licen[cs]e"),
    ("BSD-2-Clause", r"(?:2-clause|simplified) bsd licen[cs]e"),
)  # fmt: skip
SAID_PATTERNS = tuple((name, re.compile(pattern)) for name, pattern in SAID)


def _plain(text: str) -> str:
    """Returns the words alone: no comment marks, no line breaks, small letters, straight quotes."""
    return re.sub(r"[\s*#/;|\"`-]*\n[\s*#/;|\"`-]*|\s+", " ", text.replace("’", "'").replace("‘", "'")).lower()


def licence_of_file(text: str) -> str:
    """Returns the SPDX identifier of a licence file, "" where it isn't recognised. The GPL's text doesn't say "only" or "or later"."""
    plain = _plain(text[:FILE_CHARS])
    return next((name for name, words in WHOLE if all(word in plain for word in words)), "")


def _header(text: str) -> str:
    """Returns the comments before the first line of code: a file that talks about licences isn't under all of them."""
    lines, end = [], ""
    for line in text.split("\n"):
        bare = line.strip()
        if not end and (opened := OPENING.match(bare)):
            end = CLOSING[opened[0]]
            bare = bare[len(opened[0]) :]
        elif not end and bare and not bare.startswith(COMMENTS):
            break
        lines.append(line)
        if end and end in bare:
            end = ""
    return "\n".join(lines)


def licence_of_header(text: str) -> str:
    """Returns what a source file says of itself in its first lines, "" where it says nothing that is certain."""
    head = _header(text[:HEADER_CHARS])
    if found := EXPRESSION.search(head):
        return " ".join(found[1].split())
    if "icen" not in head and "ICEN" not in head and "ermission" not in head and "PERMISSION" not in head:
        return ""
    plain = _plain(head)
    said = next((name for name, pattern in SAID_PATTERNS if pattern.search(plain)), "")
    return said or next((name for name, words in WHOLE if all(word in plain for word in words)), "")


def licence_in_manifest(name: str, text: str) -> str:
    """Returns the licence that a package's manifest names, if it is one identifier or expression."""
    try:
        table = json.loads(text) if name.endswith(".json") else tomllib.loads(text)
    except (ValueError, RecursionError):
        return ""
    table = table if isinstance(table, dict) else {}
    for place in (table, table.get("project"), table.get("package")):
        named = place.get("license") if isinstance(place, dict) else None
        if isinstance(named, str) and SPDX.fullmatch(named):
            return named
    return ""


def names_licence(name: str) -> bool:
    """Returns whether a file of this name may say under which licence its folder is."""
    text = TEXT_SUFFIX.fullmatch(Path(name).suffix) is not None
    return (text and LICENCE_FILE.match(name) is not None) or name in MANIFESTS


def licence_of_texts(texts: Mapping[str, str]) -> str:
    """Returns the licence that a folder's files (name -> text) name: its manifest, or else its licence files, joined by AND."""
    named = [found for name in sorted(texts) if name in MANIFESTS and (found := licence_in_manifest(name, texts[name]))]
    files = [found for name in sorted(texts) if name not in MANIFESTS and (found := licence_of_file(texts[name]))]
    return named[0] if named else " AND ".join(dict.fromkeys(files))


def licence_of_folder(folder: Path, names: Iterable[str]) -> str:
    """Returns the licence that a folder's own files name, "" where they name none."""
    texts = {}
    for name in filter(names_licence, names):
        try:
            with open(folder / name, encoding="utf-8", errors="replace") as file:
                texts[name] = file.read(FILE_CHARS)
        except OSError:
            continue
    return licence_of_texts(texts)
