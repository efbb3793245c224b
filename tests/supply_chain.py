#!/usr/bin/env python3
"""Holds the dependency tree to deny.toml: licences, bans, duplicate versions, sources.

A small reader of the same file that `cargo deny` reads, because building cargo-deny takes longer than all tests
together. It asks cargo for what is built on each target of `[graph]`, development dependencies included.
An entry of deny.toml that nothing needs is a fault too, so that the lists cannot rot. It does not check advisories:
they need a database that is not in a package registry.
"""

import json
import re
import subprocess
import sys
import tomllib


def packages(targets):
    """Every package built on one of the targets, with whether it is ours."""
    built = set()
    for target in targets:
        # `cargo metadata` also lists what only unused features would need; `cargo tree` does not.
        command = ["cargo", "tree", "--locked", "--workspace", "--edges", "all", "--target", target]
        lines = subprocess.run([*command, "--prefix", "none"], check=True, stdout=subprocess.PIPE, text=True).stdout
        named = (line.split() for line in lines.splitlines())
        built.update((words[0], words[1].removeprefix("v")) for words in named if len(words) > 1)
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    ours = set(metadata["workspace_members"])
    found = [package for package in metadata["packages"] if (package["name"], package["version"]) in built]
    return [(package, package["id"] in ours) for package in found]


def satisfied(expression, allowed, used):
    """Evaluates an SPDX expression; `used` learns the licences that were counted on."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def unit():
        if peek() == "(":
            take()
            inner = either()
            if peek() != ")":
                raise ValueError(f"unbalanced licence expression `{expression}`")
            take()
            return inner
        licence = take()
        if peek() == "WITH":
            take()
            licence = f"{licence} WITH {take()}"
        return {licence} if licence in allowed else None

    def both():
        result = unit()
        while peek() == "AND":
            take()
            other = unit()
            result = None if result is None or other is None else result | other
        return result

    def either():
        result = both()
        while peek() == "OR":
            take()
            other = both()
            result = result if result is not None else other
        return result

    needed = either()
    if peek() is not None:
        raise ValueError(f"unreadable licence expression `{expression}`")
    used.update(needed or ())
    return needed is not None


def licence_faults(found, rules):
    allowed, used = set(rules["allow"]), set()
    exceptions = {entry["crate"]: set(entry["allow"]) for entry in rules.get("exceptions", [])}
    used_exceptions = set()
    for package, _ in found:
        name, expression = package["name"], package["license"]
        if not expression:
            yield f"{name} {package['version']} states no licence"
            continue
        if satisfied(expression, allowed, used):
            continue
        if name in exceptions and satisfied(expression, allowed | exceptions[name], set()):
            used_exceptions.add(name)
            continue
        yield f"{name} {package['version']} is under `{expression}`, which [licenses] does not allow"
    for licence in sorted(allowed - used):
        yield f"[licenses] allows `{licence}`, which no package needs"
    for name in sorted(set(exceptions) - used_exceptions):
        yield f"[licenses] has an exception for `{name}`, which does not need it"


def ban_faults(found, rules):
    for entry in rules.get("deny", []):
        for package, _ in found:
            if package["name"] == entry["crate"]:
                yield f"{package['name']} {package['version']} is banned: {entry.get('reason', 'see deny.toml')}"
    versions = {}
    for package, _ in found:
        versions.setdefault(package["name"], set()).add(package["version"])
    skipped = {}
    for entry in rules.get("skip", []):
        if not entry.get("reason"):
            yield f"[bans] skips `{entry['crate']}` without a reason"
        skipped[entry["crate"]] = entry
    for name, of_name in sorted(versions.items()):
        unexplained = {version for version in of_name if f"{name}@{version}" not in skipped}
        if len(unexplained) > 1:
            yield f"{name} is there in versions {', '.join(sorted(of_name))}: unify them or explain one under [bans] skip"
        for version in of_name - unexplained:
            del skipped[f"{name}@{version}"]
            if len(of_name) == 1:
                yield f"[bans] skips `{name}@{version}`, which is no longer a duplicate"
    for crate in sorted(skipped):
        yield f"[bans] skips `{crate}`, which is not in the tree"


def source_faults(found, rules):
    registries = {f"registry+{url}" for url in rules["allow-registry"]}
    for package, ours in found:
        if not ours and package["source"] not in registries:
            yield f"{package['name']} {package['version']} comes from `{package['source']}`"


def main():
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    found = packages(rules["graph"]["targets"])
    faults = [
        *licence_faults(found, rules["licenses"]),
        *ban_faults(found, rules["bans"]),
        *source_faults(found, rules["sources"]),
    ]
    for fault in faults:
        print(f"deny.toml: {fault}", file=sys.stderr)
    if faults:
        return 1
    print(f"{len(found)} packages follow deny.toml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
