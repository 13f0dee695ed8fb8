# Sourced by the other tools: makes this checkout ready to run, and runs things so that nothing of
# theirs stays behind. Everything is done once; when all is there it takes a fraction of a second.
#
#   setup [EXTRA..]  installs what is missing (apt packages, a private venv with setup.cfg's extras);
#                    exits with a reason
#   fuse_problem     prints why nothing can be mounted here and what to do, or fails if all is well
#   contained CMD..  runs CMD with a temporary folder of its own, then unmounts, ends and removes
#                    whatever it left
#
# After setup, $PYTHON is the venv's interpreter and $ROOT the checkout.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python
ALSO= # more lines for _missing_packages, set by a tool that needs more
# What tests/lab needs: a kernel that runs as a program, and a SCSI library inside it.
LAB="user-mode-linux command -v linux.uml
kmod command -v modprobe
iproute2 command -v ip
tgt command -v tgtd
open-iscsi command -v iscsid
dvd+rw-tools command -v growisofs
systemd test -x /lib/systemd/systemd"

# And for the mount on the network there.
NAS="nfs-kernel-server command -v exportfs
nfs-common command -v mount.nfs
rpcbind command -v rpcbind
mergerfs command -v mergerfs"

# A file server for Windows, with its clients and its own tests of the protocol.
SAMBA="samba command -v smbd
samba-vfs-modules compgen -G '/usr/lib/*/samba/vfs/acl_xattr.so'
smbclient command -v smbclient
cifs-utils command -v mount.cifs
samba-testsuite command -v smbtorture"
# Programs of a NAS's users, for tests/life.
LIFE="rsync command -v rsync
git command -v git
sqlite3 command -v sqlite3
rclone command -v rclone
restic command -v restic
dcmtk command -v storescp
orthanc command -v Orthanc"

step() { printf '==> %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

setup() {
    local python extra
    exec 9>"$ROOT/.setup.lock"
    flock 9 # two tools may be started at once
    _system_packages
    python=$(_find_python) || die "Python 3.11 or newer is needed (python3 --version)"
    _venv "$python"
    for extra; do _extra "$extra"; done
    exec 9>&-
}

_find_python() {
    local name
    for name in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# What is missing of the system, as Debian packages: each line is a package and a test for it.
_missing_packages() {
    local python package check
    python=$(_find_python || echo python3)
    while read -r package check; do
        [[ -n $package ]] || continue
        eval "$check" >/dev/null 2>&1 || echo "$package"
    done <<EOF
python3 command -v $python
python3-venv $python -c 'import ensurepip, venv'
python3-dev test -e "\$($python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"
gcc command -v cc
pkg-config command -v pkg-config
libfuse3-dev pkg-config --exists fuse3
fuse3 command -v fusermount3
ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
xorriso command -v xorriso
libisal2 $python -c 'import ctypes; ctypes.CDLL("libisal.so.2")'
zstd command -v zstd
attr command -v setfattr
acl command -v setfacl
openssl command -v openssl
$ALSO
EOF
}

_system_packages() {
    local missing log as_root=(env)
    missing=$(_missing_packages | tr '\n' ' ')
    [[ -n $missing ]] || return 0
    command -v apt-get >/dev/null ||
        die "these are missing, and only Debian and Ubuntu are known here: $missing" \
            "install what your system calls them, then run this again"
    if [[ $EUID -ne 0 ]]; then
        command -v sudo >/dev/null ||
            die "these packages are missing: $missing" \
                "run as root: apt-get install --no-install-recommends $missing"
        as_root=(sudo env)
    fi
    step "installing system packages: $missing"
    log=$(mktemp)
    # shellcheck disable=SC2086  # a list of words
    if ! { "${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 update ||
        true # an old list may do
    } >"$log" 2>&1 ||
        ! "${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get install -y \
            -o DPkg::Lock::Timeout=300 --no-install-recommends $missing >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "apt-get could not install: $missing (its whole output is in $log)"
    fi
    rm -f "$log"
    missing=$(_missing_packages | tr '\n' ' ')
    [[ -z $missing ]] || die "still missing after the installation: $missing"
}

# The stamp says for which interpreter, place and requirements the venv was made.
_venv() {
    local python=$1 stamp
    stamp=$("$python" -V; echo "$ROOT"; cat "$ROOT/setup.cfg" "$ROOT/pyproject.toml")
    if [[ -x $PYTHON && -f $VENV/stamp && $(<"$VENV/stamp") == "$stamp" ]]; then
        return 0
    fi
    step "making the private Python environment .venv (a minute or two)"
    rm -rf "$VENV"
    "$python" -m venv "$VENV" >&2 || die "$python could not make a venv in $VENV"
    _pip test
    printf '%s\n' "$stamp" >"$VENV/stamp"
}

# What not every tool needs; asked for once in the life of a venv.
_extra() {
    [[ ! -f $VENV/stamp.$1 ]] || return 0
    step "installing what '$1' needs"
    _pip "$1"
    touch "$VENV/stamp.$1"
}

_pip() {
    local log
    log=$(mktemp)
    if ! (cd "$ROOT" && PIP_ROOT_USER_ACTION=ignore "$PYTHON" -m pip install \
        --disable-pip-version-check --no-input --progress-bar off -e ".[$1]") >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        die "pip could not install hsmfs's requirements (its whole output is in $log)" \
            "is the package index reachable? behind a proxy set https_proxy"
    fi
    rm -f "$log"
}

fuse_problem() {
    local caps
    if [[ $EUID -ne 0 ]]; then
        echo "mounting hsmfs needs root: run this with sudo"
    elif [[ ! -e /dev/fuse ]] && ! modprobe fuse 2>/dev/null; then
        echo "/dev/fuse is not there: load the module (modprobe fuse), or give it to the container" \
            "(docker run --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined)"
    elif ! (: <>/dev/fuse) 2>/dev/null; then
        echo "/dev/fuse cannot be opened: the container's device rules forbid it" \
            "(docker run --device /dev/fuse)"
    else
        caps=$(awk '/^CapEff/ { print $2 }' /proc/self/status)
        if (((16#$caps >> 21) & 1)); then
            return 1
        fi
        echo "mounting is forbidden here: the container lacks CAP_SYS_ADMIN" \
            "(docker run --cap-add SYS_ADMIN --security-opt apparmor=unconfined)"
    fi
}

contained() {
    local code=0
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/hsmfs.XXXXXX")
    chmod 711 "$WORK" # servers that tests start become other users
    export HSMFS_RUN=$WORK TMPDIR=$WORK
    trap _clean EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    "$@" || code=$?
    return "$code"
}

# Processes that were started inside carry HSMFS_RUN in their environment, whoever adopted them.
_clean() {
    local pid device mountpoint
    cd /
    for pid in $(_ours); do kill "$pid" 2>/dev/null || true; done
    local patience=$((SECONDS + 5))
    while [[ -n $(_ours) && $SECONDS -lt $patience ]]; do sleep 0.1; done
    # Innermost first. A mount whose daemon hangs is aborted, else its readers would never end.
    awk -v work="$WORK/" 'index($5, work) == 1 { print $3, $5 }' /proc/self/mountinfo | tac |
        while read -r device mountpoint; do
            (echo 1 >"/sys/fs/fuse/connections/${device#0:}/abort") 2>/dev/null || true
            umount -l "$(printf '%b' "$mountpoint")" || true
        done
    for pid in $(_ours); do kill -9 "$pid" 2>/dev/null || true; done
    if ! rm -rf --one-file-system "$WORK"; then
        echo "could not remove $WORK" >&2
    fi
}

_ours() {
    local found environ
    # Without the mark itself, or the search would find itself.
    found=$(env -u HSMFS_RUN grep -lszxF "HSMFS_RUN=$WORK" /proc/[0-9]*/environ) || true
    for environ in $found; do
        environ=${environ#/proc/}
        echo "${environ%/environ}"
    done
}
