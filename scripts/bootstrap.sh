#!/bin/sh
# Make .venv and install asyncrl into it. `make install` runs this; when nothing has changed it ends at once.
#
#   PYTHON       the interpreter (default: the one of .venv, else python3)
#   TORCH_INDEX  another package index for torch alone, such as PyTorch's CPU wheel index
#
# .venv/.bootstrap says that this script made .venv. .venv/.installed exists only while an install is whole: what an
# interrupted one leaves (nothing, unless it was killed outright) is never taken for a finished one, but made anew.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'asyncrl: %s\n' "$*"; }
fail() { say "$*" >&2; exit 2; }

python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && .venv/bin/python -c '' 2>/dev/null; then python=.venv/bin/python; fi
command -v "$python" >/dev/null 2>&1 || fail "no $python here: install Python 3.11 or newer, or name one: make install PYTHON=python3.12"
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])') || fail "$python does not run"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is Python $version, asyncrl needs 3.11 or newer: name one with make install PYTHON=python3.12"
# From inside a virtual environment, perhaps the very one about to be replaced, go to the interpreter behind it.
base=$("$python" -c 'import os, sys; print(sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable))')
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')

made_for="$PWD with Python $version of $prefix" # a virtual environment holds absolute paths, so a moved one is made anew
made_from=$(cat pyproject.toml constraints.txt scripts/bootstrap.sh | cksum)
installed=$(cat .venv/.installed 2>/dev/null || true)
if [ "$installed" = "$made_for
$made_from" ] && [ -x .venv/bin/asyncrl ]; then exit 0; fi

# Renamed first, so that an interrupted deletion never leaves a part of .venv under its name.
discard_venv() {
    rm -rf .venv-discarded
    if [ -e .venv ]; then mv .venv .venv-discarded; fi
    rm -rf .venv-discarded
}

make_venv() {
    rmdir .venv 2>/dev/null || true # empty: cut off before its first file
    if [ -e .venv ] && [ ! -e .venv/.bootstrap ]; then
        fail ".venv was not made by make install: move it away, or delete it with make clean"
    fi
    if "$base" -c 'import venv; from ensurepip import version' 2>/dev/null; then how=ensurepip
    elif "$base" -c 'import venv; from pip import __version__' 2>/dev/null; then how=pip
    elif "$base" -c 'import virtualenv' 2>/dev/null; then how=virtualenv
    else fail "$base has neither ensurepip nor pip: install one first, on Debian and Ubuntu by: apt-get install python3-venv"
    fi
    say "making .venv with Python $version"
    discard_venv
    mkdir .venv
    touch .venv/.bootstrap
    case $how in
    ensurepip) "$base" -m venv .venv ;;
    pip) "$base" -m venv --without-pip .venv && "$base" -m pip --python .venv/bin/python install -q pip ;;
    virtualenv) "$base" -m virtualenv -q .venv ;;
    esac
}

# A pip that fails takes back what it did, so a .venv that was whole before is whole again; one that is cut off does not.
finish() {
    status=$1
    if [ "$status" -eq 0 ]; then return; fi
    if [ "$status" -lt 128 ] && [ -e .venv/.installed-before ]; then
        mv .venv/.installed-before .venv/.installed
    elif [ -e .venv/.bootstrap ] && [ ! -e .venv/.installed ]; then
        discard_venv
    fi
}
trap 'exit 130' INT
trap 'exit 143' TERM HUP
trap 'finish $?' EXIT

pip_install() { .venv/bin/python -m pip --disable-pip-version-check install "$@"; }

case $installed in
"$made_for
"*) mv .venv/.installed .venv/.installed-before ;;
*) make_venv ;;
esac
# torch comes alone, because its own index need not have the dependencies pinned here, and before the rest, which keeps it.
torch=$(grep '^torch==' constraints.txt)
say "installing $torch"
pip_install -q -c constraints.txt setuptools
pip_install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch"
say "installing asyncrl and what it needs"
pip_install -q -c constraints.txt --no-build-isolation -e '.[atari,test,video]'

printf '%s\n%s\n' "$made_for" "$made_from" >.venv/.installed-now
mv .venv/.installed-now .venv/.installed
rm -f .venv/.installed-before
say "installed: .venv/bin/asyncrl"
