#!/bin/sh
# Installs vsockproxy into the image that this runs in; the Dockerfile beside it calls it.
#
#   install.sh WHEELS CONFIG
#
# WHEELS is a folder with the wheels of vsockproxy and all it needs: `pip wheel --wheel-dir WHEELS .`
# with the Python version that the image has; of '.[trust]' in place of . for attestation, KMS and TLS.
# CONFIG is the enclave.yaml to be measured into it.
# Python comes from the image, or from Debian if there is none; no pip, nothing else is left behind.
set -eu

fail() {
    echo "install.sh: $*" >&2
    exit 1
}
[ $# -eq 2 ] || fail "usage: install.sh WHEELS CONFIG"
wheels=$1 config=$2
[ -d "$wheels" ] || fail "$wheels is no folder: pip wheel --wheel-dir $wheels . fills one"
[ -r "$config" ] || fail "$config cannot be read: name an enclave.yaml"

home=/opt/vsockproxy
# Without what apt fetches, builds and throws away.
size_kib() { du -skx --apparent-size --exclude=/var/cache --exclude=/var/lib/apt / | cut -f1; }
before=$(size_kib)

wanted=''
command -v python3 >/dev/null || wanted=python3
command -v strip >/dev/null || wanted="$wanted binutils"
if [ -n "$wanted" ]; then
    command -v apt-get >/dev/null || fail "no $wanted here, and no apt to install it with"
    # As Debian's slim images do: no manuals, no documentation but the licences.
    cat >/etc/dpkg/dpkg.cfg.d/vsockproxy-install <<'EOF'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
EOF
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $wanted >/dev/null
    rm -f /etc/dpkg/dpkg.cfg.d/vsockproxy-install
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$(python3 --version) is too old: vsockproxy needs 3.11"

# An environment of its own: what the user's program installs can neither break nor be broken.
python3 -m venv --without-pip "$home"
packages=$("$home/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for wheel in "$wheels"/*.whl; do
    [ -e "$wheel" ] || fail "$wheels has no wheels: pip wheel --wheel-dir $wheels . fills it"
    python3 -m zipfile -e "$wheel" "$packages" # a wheel is a zip file of what belongs there (PEP 427)
done
# What only builds and type checkers read, and the tests of others.
find "$packages" \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.c' -o -name '*.h' \) \
    -delete
find "$packages" -depth -type d \( -name tests -o -name _tests -o -name testing \) \
    -exec rm -rf {} +
rm -rf "$packages/parent_side" # the other half
rm -rf "$packages/cffi" "$packages/pycparser" # of cryptography, to build it; _cffi_backend stays
find "$packages" -name '*.so' -exec strip --strip-unneeded {} + # a third of all that is added
case "$wanted" in
*python3*) rm -rf /usr/lib/python3*/pydoc_data /usr/lib/python3*/test ;; # the package compiles them
esac
case "$wanted" in
*binutils) apt-get purge -qq -y --auto-remove binutils >/dev/null ;;
esac
if [ -n "$wanted" ]; then
    apt-get clean
    rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/apt/* \
        /var/log/dpkg.log
fi
"$home/bin/python3" -m compileall -q "$packages"
find "$packages" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} + # the same files, the same image

cat >"$home/bin/vsockproxy" <<EOF
#!$home/bin/python3
from vsockproxy.cli import main

main()
EOF
chmod 755 "$home/bin/vsockproxy"
ln -sf "$home/bin/vsockproxy" /usr/bin/vsockproxy
install -D -m 644 "$config" /etc/vsockproxy/enclave.yaml
vsockproxy check /etc/vsockproxy/enclave.yaml

echo "vsockproxy added $(($(size_kib) - before)) KiB"
