#!/usr/bin/env bash
# Runs the commands of a page: every line of its ```sh blocks that begins with ./quoll, from the
# repository's root, as written there. (What make does, CI runs itself.)
set -euo pipefail
cd "$(dirname "$0")/.."
page=$1
commands=$(awk '/^```/ { inside = /^```sh/; next } inside && /^\.\/quoll/' "$page")
[ -n "$commands" ] || { echo "$page: no commands" >&2; exit 1; }
while IFS= read -r command; do
    printf '$ %s\n' "$command"
    timeout 300 bash -c "$command" </dev/null >/tmp/readme.$$ 2>&1 || {
        cat /tmp/readme.$$
        echo "$page: this command failed" >&2
        exit 1
    }
    tail -n 3 /tmp/readme.$$
done <<<"$commands"
rm -f /tmp/readme.$$
