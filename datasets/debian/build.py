"""Build the embedded ``debian`` graph from a Debian package index.

    python datasets/debian/build.py PACKAGES --release INRELEASE     # two local files
    python datasets/debian/build.py MIRROR_URL                       # .../debian, the root of a mirror

``PACKAGES`` is ``dists/bookworm/main/binary-amd64/Packages``, plain or compressed (gz, xz, lz4); ``INRELEASE`` is
``dists/bookworm/InRelease`` (or ``Release``) of the same snapshot. The index is checked against the SHA256 that the
release file gives for it, and the same two files always give the same bytes.

Nodes are the packages of twelve application sections that have at least one edge. An undirected edge joins two of
them where one names the other in Depends, Pre-Depends or Recommends: every alternative of ``a | b`` counts, version
limits are ignored, and a virtual package stands for its provider where exactly one package of the index provides it
(with several providers nothing says which one is meant, so there is no edge). Labels are the sections. Features come
from the one-line description alone: neither the package's name nor its section, nor any other field, is used.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import hashlib
import io
import json
import lzma
import re
import subprocess
import urllib.request
from pathlib import Path

import numpy as np

from graphfm.data.tag import text_features

SUITE = "dists/bookworm"
INDEX = "main/binary-amd64/Packages"
RELATIONS = ("Pre-Depends", "Depends", "Recommends")
SECTIONS = {
    "admin": "System administration: accounts, services, backup, monitoring, package management, virtual machines.",
    "database": "Databases: servers, clients, drivers and tools for storing and querying data.",
    "editors": "Editors: text editors, office suites and their plug-ins.",
    "games": "Games: games, game engines, game data and toys.",
    "graphics": "Graphics: tools to draw, edit, view, scan, convert and recognise images.",
    "mail": "Mail: mail servers, mail readers, spam filters and mailing lists.",
    "net": "Network: clients, daemons and tools to connect to, serve and inspect networks.",
    "science": "Science: software for research in physics, chemistry, biology, astronomy and other sciences.",
    "sound": "Sound: players, recorders, mixers, synthesisers and audio plug-ins.",
    "text": "Text processing: dictionaries, converters, document tools and search.",
    "video": "Video: players, recorders, editors and streaming of video.",
    "web": "Web: browsers, web applications, content management and tools for web sites.",
}
Package = dict[str, str]


def main() -> None:
    """Read the command line, build, write three files and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a Packages file (plain, gz, xz, lz4) or the URL of a mirror's root")
    parser.add_argument("--release", help="the InRelease or Release file; needed where source is a file")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: here)")
    args = parser.parse_args()
    if args.release is None and "://" not in args.source:
        parser.error("--release is needed beside a Packages file: it holds the snapshot's date and checksum")
    release, index = fetch(args.source, args.release)
    digest = check(index, release)
    packages = parse(index.decode("utf-8"))
    names, edges = build(packages)
    write(args.out, packages, names, edges, snapshot=field(release, "Date"), digest=digest)


def fetch(source: str, release: str | None) -> tuple[str, bytes]:
    """The text of the release file and the bytes of the plain index."""
    if "://" in source and release is None:
        base = f"{source.rstrip('/')}/{SUITE}"
        return read(f"{base}/InRelease").decode(), unpack(read(f"{base}/{INDEX}.xz"))
    return Path(release or "").read_bytes().decode(), unpack(read(source))


def read(source: str) -> bytes:
    """The bytes of a file or an URL."""
    if "://" in source:
        with urllib.request.urlopen(source) as answer:
            return bytes(answer.read())
    return Path(source).read_bytes()


def unpack(raw: bytes) -> bytes:
    """Decompress by the first bytes; lz4 needs the ``lz4`` program."""
    if raw.startswith(b"\x1f\x8b"):
        return gzip.decompress(raw)
    if raw.startswith(b"\xfd7zXZ"):
        return lzma.decompress(raw)
    if raw.startswith(b"\x04\x22\x4d\x18"):
        return subprocess.run(["lz4", "-dc"], input=raw, capture_output=True, check=True).stdout
    return raw


def field(text: str, name: str) -> str:
    """One single-line field of a release file."""
    match = re.search(rf"^{name}: (.*)$", text, re.MULTILINE)
    if match is None:
        raise ValueError(f"The release file has no field {name!r}; is it an InRelease or Release file?")
    return match.group(1).strip()


def check(index: bytes, release: str) -> str:
    """SHA256 of the plain index, which the release file must list."""
    digest = hashlib.sha256(index).hexdigest()
    if not re.search(rf"^ {digest}\s+\d+\s+{INDEX}$", release, re.MULTILINE):
        raise ValueError(f"The release file lists no {INDEX} with SHA256 {digest}; take both from one snapshot.")
    return digest


def parse(text: str) -> dict[str, Package]:
    """Stanzas by package name; of two stanzas with one name the first counts."""
    packages: dict[str, Package] = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE))
        if "Package" in fields:
            packages.setdefault(fields["Package"], fields)
    return packages


def relation(text: str) -> list[str]:
    """Package names in a relation field, all alternatives, without versions and architectures."""
    parts = (part.strip() for part in re.split(r"[,|]", text))
    return [re.split(r"[\s(:\[]", part)[0] for part in parts if part]


def build(packages: dict[str, Package]) -> tuple[list[str], list[tuple[str, str]]]:
    """Sorted names of the nodes, and the edges once each as sorted pairs."""
    providers = collections.defaultdict(set)
    for name, package in packages.items():
        for virtual in relation(package.get("Provides", "")):
            providers[virtual].add(name)
    chosen = {name for name, package in packages.items() if package.get("Section") in SECTIONS}
    edges = set()
    for name in chosen:
        for wanted in relation(",".join(packages[name].get(key, "") for key in RELATIONS)):
            only = providers[wanted] if wanted not in packages and len(providers[wanted]) == 1 else {wanted}
            edges |= {(min(name, other), max(name, other)) for other in only & chosen if other != name}
    return sorted({name for edge in edges for name in edge}), sorted(edges)


def write(
    out: Path,
    packages: dict[str, Package],
    names: list[str],
    edges: list[tuple[str, str]],
    *,
    snapshot: str,
    digest: str,
) -> None:
    """Write ``graph.npz``, ``texts.jsonl.gz`` and ``meta.json``."""
    sections = sorted(SECTIONS)
    texts = [packages[name]["Description"].split("\n")[0] for name in names]
    y = np.array([sections.index(packages[name]["Section"]) for name in names], dtype=np.int64)
    position = {name: i for i, name in enumerate(names)}
    half = np.array([[position[a], position[b]] for a, b in edges], dtype=np.int32).T
    both = np.concatenate([half, half[::-1]], axis=1)
    both = both[:, np.lexsort((both[1], both[0]))]
    x = text_features(texts).astype(np.float16)
    np.savez_compressed(out / "graph.npz", edge_index=both, x=x, y=y.astype(np.int8))
    lines = [{"id": i, "name": name, "text": text} for i, (name, text) in enumerate(zip(names, texts, strict=True))]
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as file:
        file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    (out / "texts.jsonl.gz").write_bytes(packed.getvalue())
    meta = {
        "label_names": sections,
        "label_descriptions": [SECTIONS[section] for section in sections],
        "domain": "software packages that need each other",
        "source": f"Debian bookworm, {INDEX}, release file of {snapshot}, SHA256 of the plain index {digest}",
        "licence": "descriptions: their packages' authors, see /usr/share/doc/<package>/copyright of each package",
        "task": "node classification",
    }
    (out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    counts = {section: int((y == i).sum()) for i, section in enumerate(sections)}
    homophily = float((y[half[0]] == y[half[1]]).mean())
    print(f"{len(names)} packages, {len(edges)} edges, homophily {homophily:.4f}, classes {counts}")
    for name in ("graph.npz", "texts.jsonl.gz", "meta.json"):
        raw = (out / name).read_bytes()
        print(f"{name}: {len(raw)} bytes, sha256 {hashlib.sha256(raw).hexdigest()}")


if __name__ == "__main__":
    main()
