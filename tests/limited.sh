#!/usr/bin/env bash
# Run a command with less than most machines have: limited.sh LIMITS COMMAND..., with LIMITS such as offline,c-locale
#   c-locale   the C locale, without Python's UTF-8 mode
#   nobody     not as root, in a copy of the checkout
#   offline    no network but the machine itself
# What can't be limited here is told, and left as it is.
set -euo pipefail
limits=,$1,
shift

if [[ $limits == *,c-locale,* ]]; then
    unset LANG LC_CTYPE
    export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0
fi
if [[ $limits == *,nobody,* && $(id -u) == 0 ]]; then
    as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all)
    command=$(realpath -s "$1")
    if "${as_nobody[@]}" "$command" -c "" 2> /dev/null; then
        home=$(mktemp -d)
        trap 'rm -rf "$home"' EXIT
        git clone --quiet . "$home/jaxcnn"
        chown -R 65534:65534 "$home"
        cd "$home/jaxcnn"
        set -- "${as_nobody[@]}" env HOME="$home" TMPDIR="$home" "$command" "${@:2}"
    else
        echo "limited.sh: tests run as root, since $command is for root alone; give make a PYTHON that all may run" >&2
    fi
fi
if [[ $limits == *,offline,* ]]; then
    if unshare --net true 2> /dev/null; then
        set -- unshare --net bash -c 'ip link set lo up; exec "$@"' bash "$@"
    else
        echo "limited.sh: tests run online, since unshare --net is not permitted" >&2
    fi
fi
"$@"
